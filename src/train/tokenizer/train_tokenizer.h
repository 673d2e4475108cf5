#pragma once

#include "base/result.h"
#include "tokenizer/vocabulary.h"
#include "train/data/corpus.h"
#include "train/tokenizer/pair_merger.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// What a vocabulary is to be, apart from the text that it is learned from.
struct VocabularyPlan {
  int64_t vocab_size = 0;                                          // all tokens: 256 bytes, merges, special ones
  std::string pre = "llama-bpe";                                   // pre-tokenizer, see TokenizerOptions::pre
  std::string bos = "<|begin_of_text|>", eos = "<|end_of_text|>";  // empty: none
  std::vector<std::string> special;                                // more special tokens
  int64_t min_count = 2;                                           // a pair that occurs less often becomes no token
};

struct TokenizerTrainingOptions {
  std::vector<std::string> inputs;  // see Corpus
  CorpusOptions corpus;
  VocabularyPlan plan;
  int n_threads = 1;
  // Called with the share done now and then; false stops with kInterrupted. May be empty.
  std::function<bool(double done)> on_progress;
};

struct TokenizerTrainingReport {
  Vocabulary vocabulary;
  uint64_t text_bytes = 0;
  int64_t n_tokens = 0;  // that the text becomes
  uint64_t n_words = 0;  // pieces of the pre-tokenizer that differ
  std::vector<std::string> notices;
};

// Byte-level byte-pair encoding learned from text (PairMerger). Ids: the bytes in the order of their printable alphabet
// (alphabet_from_byte), merges in the order they were learned, special tokens. The same text and plan give the same
// vocabulary, whatever n_threads.
Result<TokenizerTrainingReport> train_tokenizer(const TokenizerTrainingOptions& options);

// The same from words that are counted already; `notices` may get a sentence.
Result<Vocabulary> learn_vocabulary(const VocabularyPlan& plan, PairMerger& merger,
                                    const std::function<bool(double done)>& on_progress,
                                    std::vector<std::string>& notices);

// Symbol of each byte in the vocabularies that are learned here.
std::vector<int32_t> alphabet_ids();

}  // namespace bitnet
