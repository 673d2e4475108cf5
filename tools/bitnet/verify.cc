// bitnet verify: is this model file whole, and does it run right?
#include "interrupt.h"
#include "model/checkpoint.h"
#include "model/find_model.h"
#include "output.h"
#include "verify_checks.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace bitnet::cli {
namespace {

// The file is closed again before it is loaded: a header of many keys is in memory once.
void verify_stored(const std::string& path, const VerifyOptions& options, VerifyReport& report) {
  CheckpointOptions open;
  open.i2s_arm64 = options.model.i2s_layout == "arm64";
  open.verify_checksums = false;  // a check of its own
  const Result<Checkpoint> checkpoint = Checkpoint::open(path, open);
  if (!report.add("header, config and tensor list",
                  checkpoint
                      ? Result<std::string>(fmt::format("{} of weights: {}", human_bytes(checkpoint->file_bytes()),
                                                        checkpoint->weight_types()))
                      : Result<std::string>(checkpoint.error()))) {
    return;
  }
  verify_file(*checkpoint, report);
}

Status verify(const Invocation& invocation, const VerifyOptions& options, VerifyReport& report) {
  BN_ASSIGN_OR_RETURN(const std::string path, find_model(options.model.model));
  verify_stored(path, options, report);
  if (!report.ok()) return ok();

  const Result<Model> model = load_model(invocation, options.model, Logits::kAll);
  report.add("load",
             model ? Result<std::string>(fmt::format("{} in memory, {} kernels",
                                                     human_bytes(model->info().memory_bytes), model->info().kernels))
                   : Result<std::string>(model.error()));
  if (!model) return ok();
  BN_RETURN_IF_ERROR(verify_running(*model, options, report));
  if (options.other.empty()) return ok();

  ModelFlags other_flags = options.model;
  other_flags.model = options.other;
  BN_ASSIGN_OR_RETURN(const Model other, load_model(invocation, other_flags, Logits::kAll));
  return verify_against(*model, other, options, report);
}

Result<int> run(const Invocation& invocation, const VerifyOptions& options) {
  VerifyReport report;
  BN_RETURN_IF_ERROR(verify(invocation, options, report));
  if (invocation.json) {
    OrderedJson checks = OrderedJson::array();
    for (const Check& check : report.checks()) {
      checks.push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
    }
    print_json({{"ok", report.ok()}, {"checks", checks}});
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const Check& check : report.checks())
      rows.push_back({check.ok ? "ok    " : "FAILED", check.name, check.detail});
    print(table(rows));
    print(report.ok() ? options.model.model + ": every check holds\n"
                      : options.model.model + ": something is wrong, see FAILED above\n");
  }
  return int(report.failure());
}

}  // namespace

void add_verify(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* command = app.add_subcommand("verify", "Check a model in every way there is; compare it with another one");
  command->add_option("MODEL,-m,--model", options->model.model, "GGUF file, Hugging Face folder or model name")
      ->required();
  command->add_option("OTHER", options->other, "A second model: its logits must agree with the first one's");
  command->add_flag("--deep", options->deep, "Run the slow reference back end for large models too");
  command->add_option("--tokens", options->n_tokens, "Tokens that the models are run on")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}).description(""))
      ->capture_default_str();
  add_device_flags(*command, options->model);
  define(*command, invocation, "bitnet verify models/storyteller-29m.gguf",
         [options](const Invocation& self) { return run(self, *options); });
}

}  // namespace bitnet::cli
