#pragma once

#include "base/result.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// Bytes [begin, end) of a file of a corpus.
struct CorpusSegment {
  std::string path;
  bool is_jsonl = false;
  uint64_t begin = 0, end = 0;
  bool is_tail = false;  // belongs to the validation tail
};

struct CorpusFiles {
  std::vector<CorpusSegment> segments;  // in order; a file that the tail begins in makes two
  size_t n_files = 0;
  uint64_t size_bytes = 0;
  std::vector<std::string> notices;
};

// Lists the inputs. Of the last `tail_share` of all bytes the tail begins at the next character of a text file, or the
// next line of a JSONL file.
Result<CorpusFiles> list_corpus(std::span<const std::string> inputs, double tail_share);

}  // namespace bitnet
