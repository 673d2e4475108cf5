#pragma once

#include "tokenizer/vocabulary.h"

namespace bitnet {

// The token of this text, whatever its type; none for an empty one.
std::optional<int32_t> find_token(const Vocabulary& vocabulary, std::string_view text);

// Fills stop_ids: end of text, end of turn, and the special tokens that are known to end a turn by their name. Sorted,
// none twice; keeps what is there.
void add_stop_ids(Vocabulary& vocabulary);

// The id of the first of the usual names that is a special token, for files that do not say.
void guess_bos_and_eos(Vocabulary& vocabulary);

}  // namespace bitnet
