// bitnet run: continues a text, printing it as it is generated.
#include "interrupt.h"
#include "options.h"
#include "output.h"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <memory>

namespace bitnet::cli {
namespace {

struct RunFlags {
  ModelFlags model;
  SessionFlags session;
  SamplingFlags sampling;
  TextFlags prompt;
  std::string prompt_ids;
  int64_t max_new_tokens = 256;
  bool no_bos = false;
  bool special = false;
  bool echo = false;
  bool print_ids = false;
};

struct Prompt {
  std::string text;
  std::vector<int32_t> ids;  // instead of the text, when `by_ids`
  bool by_ids = false;
};

Result<Prompt> read_prompt(const RunFlags& flags) {
  Prompt prompt;
  if (!flags.prompt_ids.empty()) {
    prompt.by_ids = true;
    BN_ASSIGN_OR_RETURN(prompt.ids, parse_ids(flags.prompt_ids, "--prompt-ids"));
    return prompt;
  }
  BN_ASSIGN_OR_RETURN(prompt.text, read_text(flags.prompt, "prompt",
                                             "bitnet run -m " + flags.model.model + " -p \"Once upon a time\""));
  return prompt;
}

std::string joined(const std::vector<int32_t>& ids) { return fmt::format("{}", fmt::join(ids, ",")); }

double rate(size_t count, double seconds) { return seconds > 0 ? double(count) / seconds : 0; }

void report(const Model& model, const Output& output) {
  const double tokens_per_s = rate(output.ids.size(), output.generate_s);
  print_report(fmt::format("prompt {} tokens, {} tokens/s; generated {} tokens, {} tokens/s, {} GB/s of weights; {}",
                           output.prompt_ids.size(), human_rate(rate(output.prompt_ids.size(), output.prompt_s)),
                           output.ids.size(), human_rate(tokens_per_s),
                           human_rate(tokens_per_s * double(model.info().bytes_per_token) / 1e9),
                           output.stop == StopReason::kLength    ? "ended at the length that -n allows"
                           : output.stop == StopReason::kEos     ? "ended by the model"
                           : output.stop == StopReason::kStop    ? "ended at a --stop text"
                           : output.stop == StopReason::kContext ? "the context is full (--ctx sets its size)"
                                                                 : "stopped"));
}

OrderedJson to_json(const Model& model, const Output& output, uint64_t seed) {
  const double tokens_per_s = rate(output.ids.size(), output.generate_s);
  return {{"text", output.text},
          {"ids", output.ids},
          {"prompt_ids", output.prompt_ids},
          {"stop", stop_reason_name(output.stop)},
          {"prompt_tokens_per_s", rate(output.prompt_ids.size(), output.prompt_s)},
          {"tokens_per_s", tokens_per_s},
          {"gb_per_s", tokens_per_s * double(model.info().bytes_per_token) / 1e9},
          {"seed", seed}};
}

Result<int> run(const Invocation& invocation, const RunFlags& flags) {
  BN_ASSIGN_OR_RETURN(const Prompt prompt, read_prompt(flags));
  BN_ASSIGN_OR_RETURN(const Model model, load_model(invocation, flags.model, wanted_logits(flags.sampling)));
  if (!prompt.by_ids) BN_RETURN_IF_ERROR(tokenizer_of(model));
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(session_options(flags.session, flags.model.n_threads)));

  GenerateOptions options = generate_options(flags.sampling);
  options.max_new_tokens = flags.max_new_tokens;
  options.add_bos = !flags.no_bos;
  options.parse_special = flags.special;

  const bool stream = !invocation.json && !flags.print_ids;
  if (stream && flags.echo && !prompt.by_ids) print(prompt.text);
  bool at_line_start = true;
  const auto on_token = [&](int32_t, std::string_view text) {
    if (stream && !text.empty()) {
      print(text);
      flush_stdout();
      at_line_start = text.back() == '\n';
    }
    return !interrupted();
  };

  Result<Output> output = [&] {
    const InterruptScope scope(&session);
    return prompt.by_ids ? generate(session, prompt.ids, options, on_token)
                         : generate(session, prompt.text, options, on_token);
  }();
  if (stream && !at_line_start) print("\n");
  if (interrupted()) return interrupted_error();
  if (!output) return output.error();

  if (invocation.json) {
    print_json(to_json(model, *output, options.sampling.seed));
    return 0;
  }
  if (flags.print_ids) print(joined(output->ids) + "\n");
  report(model, *output);
  return 0;
}

}  // namespace

void add_run(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand("run", "Continue a text, printing it as it is generated");
  add_model_flags(*command, flags->model);
  add_text_flags(*command, flags->prompt, "Text to continue");
  command->add_option("--prompt-ids", flags->prompt_ids, "Token ids to continue, 1,2,3, instead of a text")
      ->excludes("--prompt")
      ->excludes("--file");
  command
      ->add_option("-n,--max-tokens", flags->max_new_tokens,
                   "Tokens to generate at most; -1: until the context is full")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40).description(""))
      ->capture_default_str();
  command->add_flag("--no-bos", flags->no_bos, "Put no begin-of-text token in front");
  command->add_flag("--special", flags->special, "Read special tokens, <|eot_id|>, in the text as such");
  command->add_flag("--echo", flags->echo, "Print the prompt in front of its continuation");
  command->add_flag("--ids", flags->print_ids, "Print the generated token ids, comma separated, instead of text");
  add_session_flags(*command, flags->session);
  add_sampling_flags(*command, flags->sampling);
  define(*command, invocation, "bitnet run -m models/storyteller-29m.gguf -p \"Once upon a time\" -n 200 --seed 7",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
