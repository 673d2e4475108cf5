#pragma once

#include "cli.h"

// The subcommands of `bitnet train`, each in the file of its name.
namespace bitnet::cli {

// Of the command itself: `bitnet train CONFIG`.
void add_train_run(CLI::App& train, Invocation& invocation);
void add_train_replay(CLI::App& train, Invocation& invocation);

}  // namespace bitnet::cli
