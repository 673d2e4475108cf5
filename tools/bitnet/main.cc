// The bitnet program: parses the command line, runs the subcommand it names, prints errors, gives exit codes.
#include "cli.h"
#include "interrupt.h"
#include "memory/profile.h"
#include "output.h"

#include "bitnet/version.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

namespace bitnet::cli {

void define(CLI::App& command, Invocation& invocation, const std::string& example,
            std::function<Result<int>(const Invocation&)> action) {
  command.add_flag("--json", invocation.json, "Print one JSON document on stdout");
  command.footer("Example:\n  " + example);
  CLI::App* self = &command;
  command.callback([self, &invocation, action = std::move(action)] {
    if (!self->get_subcommands().empty()) return;  // `bench ops`: the inner one has spoken
    std::string name = self->get_name();
    for (const CLI::App* outer = self->get_parent(); outer != nullptr; outer = outer->get_parent()) {
      name = outer->get_name() + " " + name;
    }
    invocation.command = name;
    invocation.action = action;
  });
}

namespace {

// The command that was probably meant: as few changed letters as possible, at most two.
std::string nearest_command(const CLI::App& app, const std::string& word) {
  std::string best;
  size_t best_distance = 3;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string& name = command->get_name();
    std::vector<size_t> row(name.size() + 1);
    for (size_t j = 0; j <= name.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= name.size(); ++j) {
        const size_t changed = diagonal + (word[i - 1] != name[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = name;
    }
  }
  return best;
}

Error usage_error(const CLI::App& app, const CLI::ParseError& parse_error, const std::vector<std::string>& words) {
  Error error{ErrorCode::kInvalidArgument, parse_error.what()};
  const CLI::App* named = app.get_subcommands().empty() ? nullptr : app.get_subcommands().front();
  if (named != nullptr) {
    error.suggestion = "bitnet " + named->get_name() + " --help";
  } else if (!words.empty() && words[0][0] != '-') {
    error.message = "There is no command '" + words[0] + "'.";
    const std::string nearest = nearest_command(app, words[0]);
    error.suggestion = nearest.empty() ? "bitnet --help" : "bitnet " + nearest + " --help";
  } else {
    error.suggestion = "bitnet --help";
  }
  return error;
}

int run_program(int argc, char** argv) {
  CLI::App app("BitNet-C++: 1.58-bit language models from the command line.", "bitnet");
  app.set_version_flag("--version", "bitnet " BITNET_VERSION);
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.require_subcommand(1);
  app.footer(
      "Example:\n  bitnet run -m models/storyteller-29m.gguf -p \"Once upon a time\"\n\n"
      "'bitnet COMMAND --help' explains a command. Exit codes: 0 ok, 1 internal error, 2 wrong usage,\n"
      "3 input file missing or invalid, 4 not supported, 5 memory, disk or device missing, 6 interrupted,\n"
      "7 slower (bench report --against).");
  Invocation invocation;
  add_run(app, invocation);
  add_chat(app, invocation);
  add_logits(app, invocation);
  add_tokenize(app, invocation);
  add_detokenize(app, invocation);
  add_inspect(app, invocation);
  add_verify(app, invocation);
  add_convert(app, invocation);
  add_quantize(app, invocation);
  add_calibrate(app, invocation);
  add_plan(app, invocation);
  add_synth(app, invocation);
  add_perplexity(app, invocation);
  add_train(app, invocation);
  add_finetune(app, invocation);
  add_lora(app, invocation);
  add_distill(app, invocation);
  add_bench(app, invocation);
  add_devices(app, invocation);

  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    std::fputs(app.help().c_str(), stderr);
    return int(ErrorCode::kInvalidArgument);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == int(CLI::ExitCodes::Success)) {  // --help, --version
      app.exit(error);
      return close_stdout() ? 0 : int(ErrorCode::kResource);
    }
    const bool json = std::find(words.begin(), words.end(), "--json") != words.end();
    if (!app.get_subcommands().empty()) invocation.command = "bitnet " + app.get_subcommands().front()->get_name();
    print_error(invocation.command, json, usage_error(app, error, words));
    return int(ErrorCode::kInvalidArgument);
  }

  const bool trains = invocation.command.starts_with("bitnet train") || invocation.command == "bitnet finetune" ||
                      invocation.command == "bitnet distill";
  configure_host_pool(trains ? Profile::kTraining : Profile::kServer);
  install_interrupt_handler(invocation.command, invocation.json);
  Result<int> result = invocation.action(invocation);
  if (!result) {
    print_error(invocation.command, invocation.json, result.error());
    return int(result.error().code);
  }
  if (const Status closed = close_stdout(); !closed) {
    print_error(invocation.command, false, closed.error());
    return int(closed.error().code);
  }
  return *result;
}

}  // namespace
}  // namespace bitnet::cli

int main(int argc, char** argv) {
  // The library throws nothing of its own; this is for the standard library's own exceptions.
  try {
    return bitnet::cli::run_program(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("bitnet: there is not enough memory\n", stderr);
    return int(bitnet::ErrorCode::kResource);
  } catch (const std::exception& exception) {
    const bitnet::Error error{bitnet::ErrorCode::kInternal, std::string("internal error: ") + exception.what()};
    bitnet::cli::print_error("bitnet", false, error);
    return int(error.code);
  }
}
