// bitnet train: the group of commands around training.
#include "train.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {

void add_train(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand("train", "Train a model: its vocabulary, its data, and what became of it");
  command->require_subcommand(1);
  command->footer(
      "Example:\n"
      "  bitnet train tokenizer books/ --vocab-size 4096 --out vocabulary\n"
      "  bitnet train prepare books/ --tokenizer vocabulary --out data\n"
      "  bitnet train report run");
  add_train_tokenizer(*command, invocation);
  add_train_prepare(*command, invocation);
  add_train_report(*command, invocation);
}

}  // namespace bitnet::cli
