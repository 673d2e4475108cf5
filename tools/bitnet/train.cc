// bitnet train: the group of commands around training.
#include "train.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {

void add_train(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand("train", "Train a model: its vocabulary, its data, and what became of it");
  command->require_subcommand(0, 1);
  add_train_run(*command, invocation);
  add_train_tokenizer(*command, invocation);
  add_train_prepare(*command, invocation);
  add_train_report(*command, invocation);
  add_train_replay(*command, invocation);
}

}  // namespace bitnet::cli
