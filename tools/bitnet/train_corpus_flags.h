#pragma once

#include "cli.h"
#include "train/data/corpus.h"

#include <string>
#include <vector>

namespace bitnet::cli {

// What text a command of `bitnet train` reads.
struct CorpusFlags {
  std::string field = "text";
  std::string separator;
};
void add_corpus_flags(CLI::App& command, CorpusFlags& flags, std::vector<std::string>& inputs);
// `options` with the flags in it.
Result<CorpusOptions> corpus_options(const CorpusFlags& flags, CorpusOptions options);

}  // namespace bitnet::cli
