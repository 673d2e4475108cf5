// bitnet chat: a conversation in the model's own template. The key/value cache keeps what the next turn shares with
// the last one.
#include "chat_input.h"
#include "conversation.h"
#include "interrupt.h"
#include "options.h"
#include "output.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>

namespace bitnet::cli {
namespace {

struct ChatFlags {
  ModelFlags model;
  SessionFlags session;
  SamplingFlags sampling;
  std::string system;
  std::string load;
  int64_t max_new_tokens = -1;
};

constexpr const char* kHelp =
    "/help           this list\n"
    "/reset          forget the conversation, keep the system message\n"
    "/system TEXT    set the system message and start afresh; without TEXT remove it\n"
    "/save FILE      write the conversation to FILE\n"
    "/load FILE      go on with a saved conversation\n"
    "/exit           end (so does Ctrl-D)\n"
    "A line that ends in \\ goes on in the next one; \"\"\" begins and ends a block of lines.\n"
    "Ctrl-C stops an answer. Text that begins with / : put a space in front.";

class Chat {
 public:
  Chat(const Invocation& invocation, const ChatFlags& flags, Model model, Session session)
      : invocation_(invocation), model_(std::move(model)), session_(std::move(session)) {
    options_ = generate_options(flags.sampling);
    options_.max_new_tokens = flags.max_new_tokens;
    set_system(flags.system);
  }

  Status load(const std::string& path) {
    BN_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, load_conversation(path));
    // What the template cannot express is refused now, not at the next answer.
    if (!messages.empty()) BN_RETURN_IF_ERROR(model_.tokenizer()->encode_chat(messages, false));
    messages_ = std::move(messages);
    return ok();
  }

  // Reads and answers until the user ends it.
  void loop() {
    LineReader reader;
    if (reader.interactive()) say(fmt::format("{}. /help lists the commands, /exit ends.", model_.info().name));
    const InterruptScope scope;  // Ctrl-C never ends a conversation, only an answer
    std::string line;
    while (true) {
      clear_interrupt();
      const LineReader::Event event = read_message(reader, &line);
      if (event == LineReader::Event::kEnd) break;
      if (event == LineReader::Event::kInterrupt) {
        if (!reader.interactive()) break;
        say("\n/exit or Ctrl-D ends the chat.");
      } else if (!line.empty() && line[0] == '/') {
        if (!run_command(line)) break;
      } else if (line.find_first_not_of(" \t\n") != std::string::npos) {
        answer(line);
      }
    }
    if (reader.interactive()) print("\n");
  }

  const std::vector<ChatMessage>& messages() const { return messages_; }

 private:
  void say(const std::string& line) { print_report(line); }
  void complain(const Error& error) { print_error(invocation_.command, false, error); }

  void set_system(const std::string& text) {
    messages_.clear();
    if (!text.empty()) messages_.push_back({"system", text});
  }

  // False ends the chat.
  bool run_command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
    argument.erase(0, argument.find_first_not_of(' '));
    argument.erase(argument.find_last_not_of(' ') + 1);
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help") {
      print_report(kHelp);
    } else if (name == "/reset") {
      set_system(!messages_.empty() && messages_[0].role == "system" ? messages_[0].content : "");
      say("The conversation starts afresh.");
    } else if (name == "/system") {
      change_system(argument);
    } else if (name == "/save" || name == "/load") {
      if (argument.empty()) {
        say(name + " needs the name of a file.");
      } else if (name == "/save") {
        const Status saved = save_conversation(argument, model_.info().name, messages_);
        saved ? say(fmt::format("{} messages written to {}.", messages_.size(), argument)) : complain(saved.error());
      } else {
        const Status loaded = load(argument);
        loaded ? say(fmt::format("{} messages read from {}.", messages_.size(), argument)) : complain(loaded.error());
      }
    } else {
      say("There is no command " + name + "; /help lists them. To send it as text, put a space in front.");
    }
    return true;
  }

  void change_system(const std::string& text) {
    if (!text.empty()) {
      // Some templates know no system role.
      const ChatMessage probe[] = {{"system", text}, {"user", "x"}};
      if (const auto encoded = model_.tokenizer()->encode_chat(probe); !encoded) return complain(encoded.error());
    }
    set_system(text);
    say(text.empty() ? "No system message; the conversation starts afresh."
                     : "The system message is set; the conversation starts afresh.");
  }

  // Brings the session to the longest beginning that it shares with `ids`; gives the rest, at least one token.
  Result<std::span<const int32_t>> keep_common(std::span<const int32_t> ids) {
    const std::span<const int32_t> held = session_.ids();
    const auto [here, there] = std::mismatch(held.begin(), held.end(), ids.begin(), ids.end());
    const size_t n_common = std::min(size_t(here - held.begin()), ids.size() - 1);
    BN_RETURN_IF_ERROR(session_.truncate(int64_t(n_common)));
    return ids.subspan(n_common);
  }

  Result<Output> generate_answer() {
    BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, model_.tokenizer()->encode_chat(messages_));
    if (ids.empty())
      return invalid_input("{}: the chat template makes no token of this conversation", model_.info().path);
    if (int64_t(ids.size()) >= session_.n_ctx()) {
      Error error = invalid_argument("The context is full: the conversation has {} tokens, the context holds {}.",
                                     ids.size(), session_.n_ctx());
      error.suggestion = session_.n_ctx() < model_.info().n_ctx_train
                             ? fmt::format("/reset, or start with --ctx {}", model_.info().n_ctx_train)
                             : "/reset starts afresh (/save keeps the conversation)";
      return error;
    }
    const auto show = [&](int32_t, std::string_view text) {
      if (!invocation_.json) {
        print(text);
        flush_stdout();
      }
      return !interrupted();
    };
    BN_ASSIGN_OR_RETURN(const std::span<const int32_t> rest, keep_common(ids));
    session_.clear_stop();  // Ctrl-C at the very end of the last answer
    const InterruptScope scope(&session_);
    return generate(session_, rest, options_, show);
  }

  void answer(const std::string& text) {
    messages_.push_back({"user", text});
    const Result<Output> output = generate_answer();
    if (!output) {
      messages_.pop_back();  // as if it had not been said
      return complain(output.error());
    }
    if (!invocation_.json) print("\n");
    flush_stdout();
    if (output->stop == StopReason::kCancelled && output->ids.empty()) {
      messages_.pop_back();
      return say("[stopped before the answer began]");
    }
    messages_.push_back({"assistant", output->text});
    if (output->stop == StopReason::kCancelled) say("[stopped]");
    if (output->stop == StopReason::kLength)
      say(fmt::format("[ended after {} tokens, as -n says]", output->ids.size()));
    if (output->stop == StopReason::kContext) {
      say(fmt::format("[the context of {} tokens is full: /save keeps the conversation, /reset starts afresh]",
                      session_.n_ctx()));
    }
  }

  const Invocation& invocation_;
  Model model_;
  Session session_;
  GenerateOptions options_;
  std::vector<ChatMessage> messages_;
};

Result<int> run(const Invocation& invocation, const ChatFlags& flags) {
  BN_ASSIGN_OR_RETURN(Model model, load_model(invocation, flags.model, wanted_logits(flags.sampling)));
  BN_ASSIGN_OR_RETURN(const Tokenizer* const tokenizer, tokenizer_of(model));
  if (!tokenizer->has_chat_template()) {
    Error error =
        unsupported("{}: the model has no chat template, so it was not made for conversations.", model.info().path);
    error.suggestion = "bitnet run -m " + flags.model.model + " -p \"Once upon a time\"";
    return error;
  }
  if (!flags.system.empty()) {
    const ChatMessage probe[] = {{"system", flags.system}, {"user", "x"}};
    BN_RETURN_IF_ERROR(tokenizer->encode_chat(probe));
  }
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(session_options(flags.session, flags.model.n_threads)));
  const std::string name = model.info().name;
  Chat chat(invocation, flags, std::move(model), std::move(session));
  if (!flags.load.empty()) BN_RETURN_IF_ERROR(chat.load(flags.load));
  chat.loop();
  if (invocation.json) {
    OrderedJson messages = OrderedJson::array();
    for (const ChatMessage& message : chat.messages()) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
    print_json({{"model", name}, {"messages", messages}});
  }
  return 0;
}

}  // namespace

void add_chat(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talk with a model that has a chat template");
  add_model_flags(*command, flags->model);
  command->add_option("--system", flags->system, "System message: how the model is to answer");
  command->add_option("--load", flags->load, "Go on with a conversation that /save wrote");
  command->add_option("-n,--max-tokens", flags->max_new_tokens, "Tokens an answer at most; -1: until it ends by itself")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40).description(""))
      ->capture_default_str();
  add_session_flags(*command, flags->session);
  add_sampling_flags(*command, flags->sampling);
  define(*command, invocation, "bitnet chat -m bitnet-2b4t.gguf --system \"You answer briefly.\" --temp 0.7",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
