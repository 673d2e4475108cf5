// bitnet synth: a model of a known shape with random weights, to measure speed and memory without a download.
#include "interrupt.h"
#include "model/convert.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>

namespace bitnet::cli {
namespace {

struct SynthFlags {
  std::string preset = "2b4t", output, type = "i2_s", embed_type = "f16";
  uint64_t seed = 0;
};

Result<int> run(const Invocation& invocation, const SynthFlags& flags) {
  SynthOptions options;
  options.preset = flags.preset;
  options.seed = flags.seed;
  BN_ASSIGN_OR_RETURN(options.linear_type, parse_type(flags.type, "--type"));
  BN_ASSIGN_OR_RETURN(options.embed_type, parse_type(flags.embed_type, "--embed-type"));
  const Status made = [&] {
    const InterruptScope scope;
    Progress progress("Making " + flags.preset);
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return synthesize(flags.output, options);
  }();
  BN_RETURN_IF_ERROR(made);
  std::error_code failure;
  const uint64_t size_bytes = std::filesystem::file_size(flags.output, failure);
  if (invocation.json) {
    print_json({{"output", flags.output},
                {"preset", flags.preset},
                {"type", std::string(dtype_info(options.linear_type).name)},
                {"embed_type", std::string(dtype_info(options.embed_type).name)},
                {"seed", flags.seed},
                {"output_bytes", failure ? 0 : size_bytes}});
  } else {
    print_report(fmt::format("{}: {} with random weights, {}", flags.output, flags.preset,
                             human_bytes(failure ? 0 : size_bytes)));
  }
  return 0;
}

}  // namespace

void add_synth(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<SynthFlags>();
  CLI::App* command = app.add_subcommand("synth", "Make a model of a known shape with random weights");
  command->add_option("--preset", flags->preset, "Shape")->check(CLI::IsMember(synth_presets()))->capture_default_str();
  command->add_option("-o,--output", flags->output, "GGUF file to write")->required();
  command->add_option("--type", flags->type, "Type of the linear layers: i2_s, tq1_0 or tq2_0")
      ->check(CLI::IsMember({"i2_s", "tq1_0", "tq2_0", "q8_0", "f16", "bf16", "f32"}, CLI::ignore_case))
      ->capture_default_str();
  command->add_option("--embed-type", flags->embed_type, "Type of embedding and head: f16, bf16, q8_0, q6_k or f32")
      ->check(CLI::IsMember({"f16", "bf16", "q8_0", "q6_k", "f32"}, CLI::ignore_case))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "The same seed gives the same file")->capture_default_str();
  define(*command, invocation, "bitnet synth --preset 2b4t -o 2b4t.gguf",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
