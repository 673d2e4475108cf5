#pragma once

#include <cstdint>

namespace bitnet {

// Values [n_rows, n_cols], row-major and contiguous; a row is a token or an output of a linear.
template <class Real>
struct Rows {
  Real* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  Real* row(int64_t i) const { return data + i * n_cols; }
  int64_t n_values() const { return n_rows * n_cols; }
};

struct AttentionShape {
  int64_t n_sequences = 0;
  int64_t n_positions = 0;  // of a sequence
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t n_tokens() const { return n_sequences * n_positions; }
  int64_t q_cols() const { return n_heads * head_dim; }
  int64_t kv_cols() const { return n_kv_heads * head_dim; }
};

}  // namespace bitnet
