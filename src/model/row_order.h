#pragma once

#include "model/checkpoint.h"

#include <cstdint>

namespace bitnet {

// Where row r of a q or k weight comes from. In GGUF files of Llama models the two halves of each head are interleaved
// (rows (h, l, d) of a Hugging Face folder become (h, d, l), l = 2), so that pairs to rotate are neighbours.
struct RowOrder {
  enum Kind : uint8_t { kSame, kInterleave, kSplit } kind = kSame;
  int64_t head_dim = 0;
  int64_t rope_dim = 0;  // only these rows of a head move

  int64_t source_row(int64_t row) const;
};

// The same weight with row r taken from order.source_row(r).
LinearSource reorder_rows(LinearSource source, const RowOrder& order);

}  // namespace bitnet
