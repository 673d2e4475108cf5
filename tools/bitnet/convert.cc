// bitnet convert: any checkpoint that we read to a GGUF file or a Hugging Face folder.
#include "model/convert.h"
#include "interrupt.h"
#include "model/find_model.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <CLI/CLI.hpp>

#include <chrono>
#include <memory>

namespace bitnet::cli {
namespace {

struct ConvertFlags {
  std::string source, output;
  std::string type = "i2_s", embed_type, to = "gguf", i2s_layout = "x86", pre;
};

Result<ConvertOptions> convert_options(const ConvertFlags& flags) {
  ConvertOptions options;
  options.packed = flags.type == "packed";
  if (!options.packed) {
    BN_ASSIGN_OR_RETURN(options.linear_type, parse_type(flags.type, "--type"));
  }
  if (!flags.embed_type.empty()) {
    BN_ASSIGN_OR_RETURN(const DType embed_type, parse_type(flags.embed_type, "--embed-type"));
    options.embed_type = embed_type;
  }
  options.to_hf = flags.to == "hf";
  options.i2s_arm64 = flags.i2s_layout == "arm64";
  options.pre_tokenizer = flags.pre;
  return options;
}

Result<int> run(const Invocation& invocation, const ConvertFlags& flags) {
  BN_ASSIGN_OR_RETURN(const std::string source, find_model(flags.source));
  BN_ASSIGN_OR_RETURN(ConvertOptions options, convert_options(flags));
  const auto start = std::chrono::steady_clock::now();
  const Result<ConvertReport> report = [&] {
    const InterruptScope scope;
    Progress progress("Converting " + flags.source);
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return convert(source, flags.output, options);
  }();
  if (!report) return report.error();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (invocation.json) {
    print_json({{"output", flags.output},
                {"source_bytes", report->source_bytes},
                {"output_bytes", report->output_bytes},
                {"n_tensors", report->n_tensors},
                {"seconds", seconds},
                {"notices", report->notices}});
    return 0;
  }
  for (const std::string& notice : report->notices) print_note(invocation, notice);
  print_report(fmt::format(
      "{}: {} tensors, {} from {} ({:.0f}%), {:.1f} s", flags.output, report->n_tensors,
      human_bytes(report->output_bytes), human_bytes(report->source_bytes),
      report->source_bytes > 0 ? 100 * double(report->output_bytes) / double(report->source_bytes) : 0, seconds));
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<ConvertFlags>();
  CLI::App* command = app.add_subcommand(
      "convert", "Turn a Hugging Face folder, GGUF file or Microsoft's GPU checkpoint into GGUF, or back");
  command
      ->add_option("SOURCE", flags->source,
                   "Hugging Face folder, GGUF file, or model_state_int2.pt of Microsoft's GPU scripts")
      ->required();
  command->add_option("-o,--output", flags->output, "File, or folder with --to hf; replaced when complete")->required();
  const std::vector<std::string> float_types = {"f16",  "bf16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0",
                                                "q4_k", "q4_1", "q4_0", "q3_k", "q2_k", "f32"};
  std::vector<std::string> linear_types = {"i2_s", "tq1_0", "tq2_0", "iq1_bn", "iq2_bn", "q2_0", "packed"};
  linear_types.insert(linear_types.end(), float_types.begin(), float_types.end());
  command
      ->add_option("--type", flags->type,
                   "Type of the linear layers: i2_s, tq1_0, tq2_0, iq1_bn, iq2_bn, q2_0, packed (the smallest lossless "
                   "packing, with parity; only bitnet reads it), a type of --embed-type")
      ->check(CLI::IsMember(linear_types, CLI::ignore_case).description(""))
      ->capture_default_str();
  command
      ->add_option(
          "--embed-type", flags->embed_type,
          "Type of embedding and head: f16, bf16, f32, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k or q2_k "
          "(default: as in the source)")
      ->check(CLI::IsMember(float_types, CLI::ignore_case).description(""));
  command->add_option("--to", flags->to, "gguf, or hf: a folder with packed safetensors, config and tokenizer")
      ->check(CLI::IsMember({"gguf", "hf"}))
      ->capture_default_str();
  add_i2s_layout_flag(*command, flags->i2s_layout);
  command->add_option("--pre", flags->pre, "Pre-tokenizer to write instead of the one that the vocabulary names");
  define(*command, invocation, "bitnet convert my-model/ -o my-model.gguf --type tq2_0 --embed-type q6_k",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
