#pragma once

#include "base/result.h"

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace bitnet::cli {

// What the command line asked for; filled while it is parsed, by the one subcommand that it names.
struct Invocation {
  std::string command = "bitnet";                        // "bitnet run", as messages begin
  bool json = false;                                     // one JSON document on stdout, nothing else there
  std::function<Result<int>(const Invocation&)> action;  // gives the exit code
};

// Adds --json, the example at the end of --help, and what runs when this subcommand was named. `command` outlives
// the parsing; the action is called after it.
void define(CLI::App& command, Invocation& invocation, const std::string& example,
            std::function<Result<int>(const Invocation&)> action);

// One a subcommand, in the order of `bitnet --help`; each lives in the file of its name.
void add_run(CLI::App& app, Invocation& invocation);
void add_chat(CLI::App& app, Invocation& invocation);
void add_logits(CLI::App& app, Invocation& invocation);
void add_tokenize(CLI::App& app, Invocation& invocation);
void add_detokenize(CLI::App& app, Invocation& invocation);
void add_inspect(CLI::App& app, Invocation& invocation);
void add_verify(CLI::App& app, Invocation& invocation);
void add_convert(CLI::App& app, Invocation& invocation);
void add_quantize(CLI::App& app, Invocation& invocation);
void add_calibrate(CLI::App& app, Invocation& invocation);
void add_plan(CLI::App& app, Invocation& invocation);
void add_synth(CLI::App& app, Invocation& invocation);
void add_perplexity(CLI::App& app, Invocation& invocation);
void add_train(CLI::App& app, Invocation& invocation);
void add_finetune(CLI::App& app, Invocation& invocation);
void add_lora(CLI::App& app, Invocation& invocation);
void add_distill(CLI::App& app, Invocation& invocation);
void add_bench(CLI::App& app, Invocation& invocation);
void add_devices(CLI::App& app, Invocation& invocation);

}  // namespace bitnet::cli
