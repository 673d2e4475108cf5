#pragma once

#include "cli.h"

namespace bitnet::cli {

// The commands of the group `bitnet train`; each lives in the file of its name, train_NAME.cc.
void add_train_run(CLI::App& train, Invocation& invocation);  // `bitnet train CONFIG`, the group itself
void add_train_prepare(CLI::App& train, Invocation& invocation);
void add_train_tokenizer(CLI::App& train, Invocation& invocation);
void add_train_report(CLI::App& train, Invocation& invocation);
void add_train_replay(CLI::App& train, Invocation& invocation);

}  // namespace bitnet::cli
