#include "kernels/cpu/dense_product.h"

#include <algorithm>

namespace bitnet {
namespace {

int64_t n_panels(int64_t n, int64_t width) { return (n + width - 1) / width; }

// Elements [first, first + width) x [k_begin, k_begin + depth) as [k][width], zeros beyond the factor's end.
void pack(const DenseFactor& factor, int64_t first, int64_t width, int64_t k_begin, int64_t depth, float* panel) {
  const int64_t n = std::min(width, factor.n - first);
  const float* const data = factor.data + first * factor.stride + k_begin * factor.k_stride;
  for (int64_t k = 0; k < depth; ++k, panel += width) {
    const float* const from = data + k * factor.k_stride;
    if (factor.stride == 1) {
      std::copy_n(from, n, panel);
    } else {
      for (int64_t i = 0; i < n; ++i) panel[i] = from[i * factor.stride];
    }
    std::fill(panel + n, panel + width, 0.0f);
  }
}

void store_tile(const float* tile, int64_t n_rows, int64_t n_cols, bool add, float* c, int64_t c_stride) {
  for (int64_t r = 0; r < n_rows; ++r, tile += kProductCols, c += c_stride) {
    for (int64_t j = 0; j < n_cols; ++j) c[j] = add ? c[j] + tile[j] : tile[j];
  }
}

}  // namespace

void DenseProduct::multiply(const DenseFactor& a, const DenseFactor& b, int64_t depth, bool add, float* c,
                            int64_t c_stride) {
  const int64_t n_groups = n_panels(a.n, kProductRows), n_columns = n_panels(b.n, kProductCols);
  const int64_t panel_depth = std::min(depth, kDepth);
  a_panels_.resize(std::max(a_panels_.size(), size_t(n_groups * kProductRows * panel_depth)));
  b_panels_.resize(std::max(b_panels_.size(), size_t(pool_.n_threads() * kProductCols * panel_depth)));
  for (int64_t k = 0; k < depth; k += kDepth) {
    const int64_t n_k = std::min(kDepth, depth - k);
    pool_.parallel_for(n_groups, [&](int64_t begin, int64_t end, int) {
      for (int64_t group = begin; group < end; ++group) {
        pack(a, group * kProductRows, kProductRows, k, n_k, a_panels_.data() + group * kProductRows * n_k);
      }
    });
    pool_.parallel_for(n_columns, [&](int64_t begin, int64_t end, int thread) {
      float* const panel = b_panels_.data() + thread * kProductCols * panel_depth;
      float tile[kProductRows * kProductCols];
      for (int64_t column = begin; column < end; ++column) {
        const int64_t j = column * kProductCols;
        pack(b, j, kProductCols, k, n_k, panel);
        for (int64_t group = 0; group < n_groups; ++group) {
          const int64_t i = group * kProductRows;
          kernels_.product_f32(a_panels_.data() + i * n_k, kProductRows, panel, kProductCols, n_k, tile);
          store_tile(tile, std::min(kProductRows, a.n - i), std::min(kProductCols, b.n - j), add || k > 0,
                     c + i * c_stride + j, c_stride);
        }
      }
    });
  }
}

}  // namespace bitnet
