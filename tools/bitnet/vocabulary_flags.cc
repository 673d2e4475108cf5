#include "vocabulary_flags.h"

#include "model/find_model.h"
#include "options.h"
#include "output.h"
#include "tokenizer/vocabulary.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {

void add_vocabulary_flags(CLI::App& command, VocabularyFlags& flags) {
  CLI::Option* model =
      command.add_option("-m,--model", flags.model,
                         "GGUF file, Hugging Face folder, or the name of a model in $BITNET_MODELS or ./models");
  command
      .add_option("--tokenizer", flags.tokenizer,
                  "A bare vocabulary: tokenizer.json, tiktoken ranks, SentencePiece model or GGUF file")
      ->excludes(model);
  command.add_option("--pre", flags.pre, "Pre-tokenizer to use instead of the one that the vocabulary names");
}

Result<Tokenizer> load_vocabulary(const Invocation& invocation, const VocabularyFlags& flags) {
  const std::string& path = flags.tokenizer.empty() ? flags.model : flags.tokenizer;
  if (path.empty()) {
    Error error = invalid_argument("No vocabulary: give a model with -m or a vocabulary file with --tokenizer.");
    error.suggestion = "-m models/storyteller-29m.gguf";
    return error;
  }
  TokenizerOptions options;
  options.pre = flags.pre;
  std::string found = path;
  if (flags.tokenizer.empty()) {
    BN_ASSIGN_OR_RETURN(found, find_model(path));
  }
  BN_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::load(found, options));
  for (const std::string& notice : vocabulary_of(tokenizer).notices) print_note(invocation, notice);
  return tokenizer;
}

}  // namespace bitnet::cli
