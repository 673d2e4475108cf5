#include "vocabulary_flags.h"

#include "model/find_model.h"
#include "model/microsoft_gpu.h"
#include "options.h"
#include "output.h"
#include "tokenizer/vocabulary.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {

void add_vocabulary_flags(CLI::App& command, VocabularyFlags& flags) {
  CLI::Option* model = command.add_option("-m,--model", flags.model,
                                          "GGUF file, Hugging Face folder, Microsoft's model_state_int2.pt, or the "
                                          "name of a model in $BITNET_MODELS or ./models");
  command
      .add_option("--tokenizer", flags.tokenizer,
                  "A bare vocabulary: tokenizer.json, tiktoken ranks, SentencePiece model or GGUF file")
      ->excludes(model);
  command.add_option("--pre", flags.pre, "Pre-tokenizer to use instead of the one that the vocabulary names");
}

namespace {

Result<Tokenizer> tokenizer_of_model(const std::string& path, const TokenizerOptions& options) {
  const auto archive = find_microsoft_gpu(path);
  if (!archive) return Tokenizer::load(path, options);
  BN_ASSIGN_OR_RETURN(auto vocabulary, vocabulary_of_microsoft_gpu(*archive, options.pre));
  if (vocabulary) return make_tokenizer(*std::move(vocabulary), path);
  return invalid_input("{}: neither its folder nor the one above holds a vocabulary, expected tokenizer.model",
                       *archive);
}

}  // namespace

Result<Tokenizer> load_vocabulary(const Invocation& invocation, const VocabularyFlags& flags) {
  const std::string& path = flags.tokenizer.empty() ? flags.model : flags.tokenizer;
  if (path.empty()) {
    Error error = invalid_argument("No vocabulary: give a model with -m or a vocabulary file with --tokenizer.");
    error.suggestion = "-m models/storyteller-29m.gguf";
    return error;
  }
  TokenizerOptions options;
  options.pre = flags.pre;
  std::string model;
  if (flags.tokenizer.empty()) {
    BN_ASSIGN_OR_RETURN(model, find_model(path));
  }
  BN_ASSIGN_OR_RETURN(Tokenizer tokenizer,
                      model.empty() ? Tokenizer::load(path, options) : tokenizer_of_model(model, options));
  for (const std::string& notice : vocabulary_of(tokenizer).notices) print_note(invocation, notice);
  return tokenizer;
}

}  // namespace bitnet::cli
