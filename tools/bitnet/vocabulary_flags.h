#pragma once

#include "cli.h"

#include "bitnet/tokenizer.h"

#include <string>

namespace bitnet::cli {

// Where a vocabulary comes from: a model, of which nothing else is read, or a bare vocabulary file.
struct VocabularyFlags {
  std::string model;
  std::string tokenizer;
  std::string pre;
};
void add_vocabulary_flags(CLI::App& command, VocabularyFlags& flags);
// Prints the vocabulary's notices.
Result<Tokenizer> load_vocabulary(const Invocation& invocation, const VocabularyFlags& flags);

}  // namespace bitnet::cli
