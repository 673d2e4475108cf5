#include "train/cpu/ternary_gradient.h"

#include "base/checked.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {

constexpr float kLevels = 32000.0f;
constexpr int64_t kPairRow = 2 * kProductRows, kPairCols = 2 * kProductCols;  // int16 values of a pair

int64_t n_pairs(int64_t n) { return (n + 1) / 2; }
int64_t n_groups(int64_t n) { return (n + kProductRows - 1) / kProductRows; }
int64_t n_columns(int64_t n) { return (n + kProductCols - 1) / kProductCols; }

// What rounds to kLevels levels; 0 for zeros alone, so that they stay zeros.
float scale_to_levels(float largest) { return largest > 0.0f ? kLevels / largest : 0.0f; }

// Tile [12][32] of sums to the rows of out that exist.
void store_tile(const TrainingKernels& kernels, const int32_t* tile, int64_t n_rows, int64_t n_cols,
                const float* factors, bool add, float* out, int64_t stride) {
  for (int64_t r = 0; r < n_rows; ++r) {
    kernels.scale_product(tile + r * kProductCols, n_cols, factors[r], add, out + r * stride);
  }
}

}  // namespace

TernaryGradient::Scratch& TernaryGradient::scratch(int thread) { return scratch_[size_t(thread)]; }

void TernaryGradient::pack_weight(const uint8_t* codes, int64_t n_out, int64_t n_in,
                                  PoolVector<int16_t>& panels) const {
  const int64_t pairs = n_pairs(n_out);
  panels.resize(size_t(n_columns(n_in) * pairs * kPairCols));
  const std::vector<int8_t> zeros(kProductCols, 1);  // the code of weight 0
  pool_.parallel_for(n_columns(n_in), [&](int64_t begin, int64_t end, int) {
    for (int64_t column = begin; column < end; ++column) {
      const int64_t i = column * kProductCols, n = std::min(kProductCols, n_in - i);
      for (int64_t p = 0; p < pairs; ++p) {
        int16_t* const out = panels.data() + (column * pairs + p) * kPairCols;
        const auto* const first = reinterpret_cast<const int8_t*>(codes) + 2 * p * n_in + i;
        kernels_.widen_pairs(first, 2 * p + 1 < n_out ? first + n_in : zeros.data(), -1, n, out);
        std::fill(out + 2 * n, out + kPairCols, int16_t{0});
      }
    }
  });
}

void TernaryGradient::input_gradient(Rows<float> dy, const PoolVector<int16_t>& panels, float alpha, bool add,
                                     Rows<float> dx) {
  scratch_.resize(size_t(pool_.n_threads()));
  const int64_t pairs = n_pairs(dy.n_cols), n_in = dx.n_cols;
  pool_.parallel_for(n_groups(dy.n_rows), [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch(thread);
    s.rows.resize(std::max(s.rows.size(), size_t(2 * pairs)));
    s.panels.resize(std::max(s.panels.size(), size_t(kGroupsAtOnce * pairs * kPairRow)));
    float factors[kGroupsAtOnce * kProductRows] = {};
    int32_t tile[kProductRows * kProductCols];
    for (int64_t group = begin; group < end; group += kGroupsAtOnce) {
      const int64_t n = std::min(kGroupsAtOnce, end - group);
      for (int64_t r = 0; r < n * kProductRows; ++r) {
        const int64_t t = group * kProductRows + r;
        if (t < dy.n_rows) {
          const float largest = kernels_.absmax(dy.row(t), dy.n_cols);
          factors[r] = largest / kLevels * alpha;
          s.rows[size_t(2 * pairs - 1)] = 0;
          kernels_.quantize_i16(dy.row(t), scale_to_levels(largest), dy.n_cols, s.rows.data());
        } else {
          std::fill_n(s.rows.begin(), 2 * pairs, int16_t{0});
        }
        int16_t* out = s.panels.data() + r / kProductRows * pairs * kPairRow + r % kProductRows * 2;
        const int16_t* from = s.rows.data();
        for (int64_t p = 0; p < pairs; ++p, out += kPairRow, from += 2) std::memcpy(out, from, 4);
      }
      for (int64_t column = 0; column < n_columns(n_in); ++column) {
        const int64_t j = column * kProductCols;
        for (int64_t i = 0; i < n; ++i) {
          const int64_t t = (group + i) * kProductRows;
          kernels_.product_i16(s.panels.data() + i * pairs * kPairRow, panels.data() + column * pairs * kPairCols,
                               pairs, tile);
          store_tile(kernels_, tile, std::min(kProductRows, dy.n_rows - t), std::min(kProductCols, n_in - j),
                     factors + i * kProductRows, add, dx.row(t) + j, n_in);
        }
      }
    }
  });
}

void TernaryGradient::weight_gradient(Rows<float> dy, const QuantizedView& x, float* dw) {
  scratch_.resize(size_t(pool_.n_threads()));
  for (int64_t token = 0; token < dy.n_rows; token += kTokensAtOnce) {
    const int64_t n_tokens = std::min(kTokensAtOnce, dy.n_rows - token);
    pack_tokens(x, token, n_tokens);
    pool_.parallel_for(n_groups(dy.n_cols), [&](int64_t begin, int64_t end, int thread) {
      outputs(dy, x, token, n_tokens, begin * kProductRows, std::min(end * kProductRows, dy.n_cols), scratch(thread),
              dw);
    });
  }
}

// [32 inputs][pair of tokens][input: 32][2].
void TernaryGradient::pack_tokens(const QuantizedView& x, int64_t first, int64_t n_tokens) {
  const int64_t pairs = n_pairs(n_tokens);
  x_panels_.resize(std::max(x_panels_.size(), size_t(n_columns(x.n_cols) * pairs * kPairCols)));
  pool_.parallel_for(n_columns(x.n_cols), [&](int64_t begin, int64_t end, int) {
    const int8_t zeros[kProductCols] = {};
    for (int64_t column = begin; column < end; ++column) {
      const int64_t i = column * kProductCols, n = std::min(kProductCols, x.n_cols - i);
      for (int64_t p = 0; p < pairs; ++p) {
        int16_t* const out = x_panels_.data() + (column * pairs + p) * kPairCols;
        const int8_t* const row = x.codes + (first + 2 * p) * x.stride + i;
        kernels_.widen_pairs(row, 2 * p + 1 < n_tokens ? row + x.stride : zeros, 0, n, out);
        std::fill(out + 2 * n, out + kPairCols, int16_t{0});
      }
    }
  });
}

void TernaryGradient::outputs(Rows<float> dy, const QuantizedView& x, int64_t token, int64_t n_tokens, int64_t first,
                              int64_t last, Scratch& s, float* dw) const {
  const int64_t n = last - first, pairs = n_pairs(n_tokens), n_in = x.n_cols;
  const int64_t padded = round_up(n, kProductRows);
  s.largest.assign(size_t(padded), 0.0f);
  s.scales.assign(size_t(padded), 0.0f);
  s.rows.assign(std::max(s.rows.size(), size_t(2 * padded)), int16_t{0});
  s.panels.resize(std::max(s.panels.size(), size_t(padded * 2 * pairs)));
  for (int64_t t = token; t < token + n_tokens; ++t) {
    kernels_.column_absmax(dy.row(t) + first, x.inv_scales[t], n, s.largest.data());
  }
  for (int64_t o = 0; o < n; ++o) {
    s.scales[size_t(o)] = scale_to_levels(s.largest[size_t(o)]);
    s.largest[size_t(o)] /= kLevels;
  }
  for (int64_t p = 0; p < pairs; ++p) {
    const int64_t t = token + 2 * p;
    const bool both = 2 * p + 1 < n_tokens;  // the last token may be alone: its partner counts as zeros
    kernels_.quantize_pairs(dy.row(t) + first, x.inv_scales[t], dy.row(both ? t + 1 : t) + first,
                            both ? x.inv_scales[t + 1] : 0.0f, s.scales.data(), n, s.rows.data());
    for (int64_t o = 0; o < padded; o += kProductRows) {
      std::memcpy(s.panels.data() + (o / kProductRows * pairs + p) * kPairRow, s.rows.data() + 2 * o,
                  kPairRow * sizeof(int16_t));
    }
  }
  int32_t tile[kProductRows * kProductCols];
  for (int64_t o = 0; o < n; o += kProductRows) {
    for (int64_t column = 0; column < n_columns(n_in); ++column) {
      const int64_t i = column * kProductCols;
      kernels_.product_i16(s.panels.data() + o / kProductRows * pairs * kPairRow,
                           x_panels_.data() + column * pairs * kPairCols, pairs, tile);
      store_tile(kernels_, tile, std::min(kProductRows, n - o), std::min(kProductCols, n_in - i), s.largest.data() + o,
                 true, dw + (first + o) * n_in + i, n_in);
    }
  }
}

}  // namespace bitnet
