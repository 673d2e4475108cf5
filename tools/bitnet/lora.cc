// bitnet lora: what is to be done with a low-rank adapter beside loading it (--lora).
#include "interrupt.h"
#include "model/find_model.h"
#include "model/lora_merge.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>

namespace bitnet::cli {
namespace {

struct MergeFlags {
  std::string model, lora, output, type = "f16", to = "hf";
  bool requantize = false;
};

constexpr size_t kShownWeights = 12;

Result<MergeOptions> merge_options(const MergeFlags& flags) {
  MergeOptions options;
  BN_ASSIGN_OR_RETURN(options.type, parse_type(flags.type, "--type"));
  options.requantize = flags.requantize;
  options.to_hf = flags.to == "hf";
  options.scale = parse_lora(flags.lora).scale;
  return options;
}

OrderedJson report_json(const MergeFlags& flags, const MergeReport& report) {
  OrderedJson weights = OrderedJson::array();
  for (const MergedWeight& w : report.weights) {
    OrderedJson json = {{"name", w.name}, {"delta", w.delta}, {"relative_error", w.error}, {"kept", w.kept}};
    if (flags.requantize) json["flipped"] = w.flipped;
    weights.push_back(std::move(json));
  }
  return {{"output", flags.output},
          {"source_bytes", report.file.source_bytes},
          {"output_bytes", report.file.output_bytes},
          {"notices", report.file.notices},
          {"weights", std::move(weights)}};
}

// The weights that lost most.
std::string worst_weights(const MergeFlags& flags, const MergeReport& report) {
  std::vector<MergedWeight> order = report.weights;
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.error > b.error; });
  std::vector<std::vector<std::string>> rows = {{"weight", "adapter / base", "relative error", "kept", "flipped"}};
  for (size_t i = 0; i < std::min(order.size(), kShownWeights); ++i) {
    const MergedWeight& w = order[i];
    rows.push_back({w.name, fmt::format("{:.4f}", w.delta), fmt::format("{:.2e}", w.error),
                    fmt::format("{:.1f}%", 100 * w.kept), fmt::format("{:.2f}%", 100 * w.flipped)});
  }
  if (!flags.requantize) {
    for (auto& row : rows) row.pop_back();
  }
  std::string text = table(rows);
  if (order.size() > kShownWeights) {
    text += fmt::format("... and {} more that lost less\n", order.size() - kShownWeights);
  }
  return text;
}

Result<int> merge(const Invocation& invocation, const MergeFlags& flags) {
  BN_ASSIGN_OR_RETURN(const std::string base, find_model(flags.model));
  BN_ASSIGN_OR_RETURN(MergeOptions options, merge_options(flags));
  const Result<MergeReport> report = [&] {
    const InterruptScope scope;
    Progress progress("Merging into " + flags.model);
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return merge_lora(base, parse_lora(flags.lora).path, flags.output, options);
  }();
  if (!report) return report.error();
  if (invocation.json) {
    print_json(report_json(flags, *report));
    return 0;
  }
  for (const std::string& notice : report->file.notices) print_note(invocation, notice);
  print(worst_weights(flags, *report));
  print_report(fmt::format("{}: {} tensors, {} of them changed by the adapter, {} from {}", flags.output,
                           report->file.n_tensors, report->weights.size(), human_bytes(report->file.output_bytes),
                           human_bytes(report->file.source_bytes)));
  return 0;
}

}  // namespace

void add_lora(CLI::App& app, Invocation& invocation) {
  CLI::App* lora = app.add_subcommand("lora", "Low-rank adapters: put one into its model");
  lora->require_subcommand(1);
  auto flags = std::make_shared<MergeFlags>();
  CLI::App* command = lora->add_subcommand("merge", "A model that computes what base and adapter do together");
  command->add_option("-m,--model", flags->model, "The base: GGUF file or Hugging Face folder")->required();
  command->add_option("--lora", flags->lora, "The adapter, ADAPTER or ADAPTER:SCALE")->required();
  command->add_option("-o,--output", flags->output, "New folder, or with --to gguf a file; replaced when complete")
      ->required();
  command->add_option("--type", flags->type, "Type of the merged linears: f16, bf16 or f32")
      ->check(CLI::IsMember({"f16", "bf16", "f32"}, CLI::ignore_case).description(""))
      ->capture_default_str();
  command->add_flag("--requantize", flags->requantize,
                    "Ternary again, with the least squared error: small, but much of the adapter is lost, as is told");
  command->add_option("--to", flags->to, "hf: a folder; gguf, with --requantize: an I2_S file")
      ->check(CLI::IsMember({"gguf", "hf"}))
      ->capture_default_str();
  define(*command, invocation, "bitnet lora merge -m models/storyteller-29m.gguf --lora runs/tuned/adapter -o merged",
         [flags](const Invocation& self) { return merge(self, *flags); });
}

}  // namespace bitnet::cli
