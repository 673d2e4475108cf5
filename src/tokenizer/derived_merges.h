#pragma once

#include "tokenizer/vocabulary.h"

#include <string>
#include <utility>
#include <vector>

namespace bitnet {

// The merges as a list, for formats that need one: those of the vocabulary, or every way to cut a normal token into
// two symbols (tokens; for SentencePiece also single characters), in the order that ranks or scores say.
std::vector<std::pair<std::string, std::string>> merges_as_list(const Vocabulary& vocabulary);

// Whether a SentencePiece vocabulary's scores alone make the merges that it lists.
bool scores_make_listed_merges(const Vocabulary& vocabulary);

}  // namespace bitnet
