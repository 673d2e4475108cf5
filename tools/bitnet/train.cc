// bitnet train: the group of commands around training.
#include "train.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {

void add_train(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand("train", "Train a model: its vocabulary, its data, and what became of it");
  command->require_subcommand(1);
  command->footer(
      "Example:\n"
      "  bitnet train prepare books/ --tokenizer vocabulary --out data");
  add_train_prepare(*command, invocation);
}

}  // namespace bitnet::cli
