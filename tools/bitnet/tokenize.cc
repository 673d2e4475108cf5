// bitnet tokenize: text to token ids. Only the vocabulary is read, never the weights.
#include "options.h"
#include "output.h"
#include "vocabulary_flags.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace bitnet::cli {
namespace {

struct TokenizeFlags {
  VocabularyFlags vocabulary;
  TextFlags text;
  bool no_bos = false;
  bool parse_special = false;
  bool ids_only = false;
};

std::string_view piece(const Tokenizer& tokenizer, int32_t id) {
  const std::string_view bytes = tokenizer.token_bytes(id);
  return bytes.empty() ? tokenizer.token_text(id) : bytes;
}

// Written piece by piece: a document in memory would take many times the text.
void print_as_json(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  print(fmt::format("{{\"ids\": [{}],\n \"pieces\": [", fmt::join(ids, ", ")));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) print(", ");
    print(quoted_json(piece(tokenizer, ids[i])));
  }
  print("]}\n");
}

Result<int> run(const Invocation& invocation, const TokenizeFlags& flags) {
  BN_ASSIGN_OR_RETURN(const Tokenizer tokenizer, load_vocabulary(invocation, flags.vocabulary));
  BN_ASSIGN_OR_RETURN(const std::string text, read_text(flags.text, "text", "bitnet tokenize -m MODEL -p \"Hello\""));
  EncodeOptions options;
  options.add_bos = !flags.no_bos;
  options.parse_special = flags.parse_special;
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.encode(text, options));
  if (invocation.json) {
    print_as_json(tokenizer, ids);
  } else if (flags.ids_only) {
    print(fmt::format("{}\n", fmt::join(ids, ",")));
  } else {
    for (const int32_t id : ids) print(fmt::format("{}\t\"{}\"\n", id, escaped(piece(tokenizer, id))));
    print_report(fmt::format("{} tokens; {}", ids.size(), tokenizer.description()));
  }
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand("tokenize", "Show the token ids and pieces of a text");
  add_vocabulary_flags(*command, flags->vocabulary);
  add_text_flags(*command, flags->text, "Text to tokenize");
  command->add_flag("--no-bos", flags->no_bos, "Put no begin-of-text token in front");
  command->add_flag("--parse-special", flags->parse_special, "Read special tokens, <|eot_id|>, in the text as such");
  command->add_flag("--ids", flags->ids_only, "Print only the ids, comma separated");
  define(*command, invocation, "bitnet tokenize -m models/storyteller-29m.gguf -p \"Hello world\"",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
