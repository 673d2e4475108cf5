#pragma once

#include "base/result.h"
#include "train/data/corpus.h"
#include "train/tokenizer/pair_merger.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bitnet {

struct WordCounts {
  std::vector<CountedWord> words;  // sorted by bytes
  uint64_t text_bytes = 0;
};
// How often each piece that the pre-tokenizer cuts out of the text occurs. Memory grows with the different pieces, of
// which it takes a limited number. `on_progress` as in TokenizerTrainingOptions.
Result<WordCounts> count_words(Corpus& corpus, const std::string& pre, int n_threads,
                               const std::function<bool(double done)>& on_progress);

}  // namespace bitnet
