// bitnet train replay: a recorded training run again, to compare.
#include "options.h"
#include "output.h"
#include "train.h"
#include "train/replay.h"

#include <CLI/CLI.hpp>

#include <map>
#include <memory>
#include <string>

namespace bitnet::cli {
namespace {

struct ReplayFlags {
  std::string file;
  ReplayOptions options;
};

Result<int> run_replay(const Invocation& invocation, const ReplayFlags& flags) {
  BN_ASSIGN_OR_RETURN(const ReplayReport report, replay(flags.file, flags.options));
  if (invocation.json) {
    print_json({{"losses", report.losses},
                {"max_loss_diff", report.max_loss_diff},
                {"max_grad_rel_diff", report.max_grad_rel_diff},
                {"max_final_rel_diff", report.max_final_rel_diff}});
    return 0;
  }
  for (size_t i = 0; i < report.losses.size(); ++i) print(fmt::format("step {:4}  loss {:.6f}\n", i, report.losses[i]));
  print(fmt::format("largest differences: loss {:.3g}, gradient {:.3g} ({}), final weight {:.3g} ({})\n",
                    report.max_loss_diff, report.max_grad_rel_diff, report.worst_grad, report.max_final_rel_diff,
                    report.worst_final));
  return 0;
}

}  // namespace

void add_train_replay(CLI::App& train, Invocation& invocation) {
  auto flags = std::make_shared<ReplayFlags>();
  CLI::App* command =
      train.add_subcommand("replay", "Repeat a recorded training run and compare with what it recorded");
  command->add_option("fixture", flags->file, "safetensors file: init.*, tokens, grad0.*, losses, final.*")->required();
  const std::map<std::string, ReplayArithmetic> kinds = {{"float", ReplayArithmetic::kFloat},
                                                         {"double", ReplayArithmetic::kDouble},
                                                         {"kernels", ReplayArithmetic::kKernels}};
  command
      ->add_option("--arithmetic", flags->options.arithmetic,
                   "float as the record, double, or kernels: what training runs on")
      ->transform(CLI::CheckedTransformer(kinds, CLI::ignore_case));
  command->add_option("--device", flags->options.device, "cpu, cuda or cuda:N; a GPU computes with its own kernels");
  const std::map<std::string, TrainPrecision> precisions = {{"bf16", TrainPrecision::kBf16},
                                                            {"float32", TrainPrecision::kFloat32}};
  command->add_option("--precision", flags->options.precision, "Of a GPU's kernels: bf16 or float32")
      ->transform(CLI::CheckedTransformer(precisions, CLI::ignore_case));
  add_threads_flag(*command, flags->options.n_threads);
  define(*command, invocation, "bitnet train replay tests/data/train/ten_steps.safetensors --json",
         [flags](const Invocation& self) { return run_replay(self, *flags); });
}

}  // namespace bitnet::cli
