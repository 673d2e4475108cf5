#pragma once

#include "base/result.h"
#include "train/data/corpus.h"
#include "train/data/dataset.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bitnet {

struct PrepareOptions {
  std::vector<std::string> inputs;  // files and folders, see Corpus
  CorpusOptions corpus;             // cut_at_newlines is set by prepare
  std::string tokenizer;            // what Tokenizer::load takes, or "byte"
  std::string pre_tokenizer;        // see TokenizerOptions::pre
  std::string folder;               // is made; must not be there
  bool add_bos = true;              // in front of each document, where the vocabulary asks for it
  bool add_eos = true;              // behind each document, where the vocabulary has one
  int64_t shard_tokens = 100'000'000;
  int n_threads = 1;
  // Called with the share done now and then; false stops with kInterrupted. May be empty.
  std::function<bool(double done)> on_progress;
};

struct PrepareReport {
  DatasetInfo info;
  uint64_t n_files = 0;
  uint64_t text_bytes[2] = {0, 0};  // of documents, by Split
  uint64_t n_counted[2] = {0, 0};   // tokens that count as targets, of conversations
  std::vector<std::string> notices;
};

// Turns text into a dataset, with memory that does not grow with the text. The folder appears under its name only when
// it is complete. The result depends on the text and the options, never on n_threads.
Result<PrepareReport> prepare_dataset(const PrepareOptions& options);

}  // namespace bitnet
