#include "kernels/cpu/head_sketch.h"

#include "base/parallel_status.h"
#include "kernels/cpu/cpu_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr float kRelativeStep = 0.09f;    // of the root mean square: near the least error for a bell curve
constexpr float kRoundUp = 1.0f + 1e-4f;  // more than the rounding of a sum of squares in lanes loses
constexpr int64_t kLanes = 16;

float length_of(const float* squares) {
  double sum = 0;
  for (int64_t i = 0; i < kLanes; ++i) sum += squares[i];
  return float(std::sqrt(sum)) * kRoundUp;
}

}  // namespace

Result<std::unique_ptr<const HeadSketch>> HeadSketch::build(const FloatSource& source, int64_t row_bytes, Widen widen,
                                                            ThreadPool& pool) {
  auto sketch = std::make_unique<HeadSketch>();
  sketch->n_tiles_ = (source.n_rows + kTileRows - 1) / kTileRows;
  sketch->tile_bytes_ = (source.n_cols + kBlockCols - 1) / kBlockCols * kBlockBytes;
  BN_ASSIGN_OR_RETURN(sketch->planes_, Buffer::allocate(size_t(3 * sketch->n_tiles_ * sketch->tile_bytes_)));
  for (auto* values : {&sketch->step_, &sketch->length_, &sketch->coarse_error_, &sketch->fine_error_}) {
    values->resize(size_t(source.n_rows));
  }
  const int64_t n_cols = source.n_cols;
  const auto build_tiles = [&](int64_t begin, int64_t end) -> Status {
    // Rows as stored, one row as floats (whole lanes, zeros behind it), its codes in three planes.
    const int64_t padded_cols = (n_cols + kLanes - 1) / kLanes * kLanes;
    std::vector<std::byte> stored(size_t(kTileRows * row_bytes));
    std::vector<float> w(static_cast<size_t>(padded_cols));
    std::vector<uint8_t> codes(size_t(3 * padded_cols));
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileRows, n_rows = std::min(kTileRows, source.n_rows - first);
      BN_RETURN_IF_ERROR(source.read_rows(first, n_rows, stored.data()));
      for (int64_t i = 0; i < n_rows; ++i) {
        widen(reinterpret_cast<const uint8_t*>(stored.data()) + i * row_bytes, n_cols, w.data());
        sketch->add_row(w.data(), padded_cols, first + i, codes.data());
        for (int plane = 0; plane < 3; ++plane) {
          pack_tile_row(codes.data() + plane * padded_cols, n_cols, i, sketch->plane_of(tile, plane));
        }
      }
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(pool, sketch->n_tiles_, build_tiles));
  return std::unique_ptr<const HeadSketch>(std::move(sketch));
}

// `w` in whole lanes. A row of zeros, or of values whose squares overflow, gets errors that say so: 0 or infinity.
void HeadSketch::add_row(const float* w, int64_t n_cols, int64_t row, uint8_t* codes) {
  float squares[kLanes] = {}, coarse[kLanes] = {}, fine[kLanes] = {};
  for (int64_t i = 0; i < n_cols; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) squares[j] += w[i + j] * w[i + j];
  }
  const float length = length_of(squares);
  const float step = std::isfinite(length) ? kRelativeStep * length / std::sqrt(float(n_cols)) : 0.0f;
  const float inverse = step > 1e-30f ? 1.0f / step : 0.0f;
  uint8_t* const planes[3] = {codes, codes + n_cols, codes + 2 * n_cols};
  for (int64_t i = 0; i < n_cols; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const float value = w[i + j];
      const int u = int(std::min(std::max(value * inverse + 32.0f, 0.0f), 63.0f));
      const float fine_rest = value - step * (float(u) - 31.5f), coarse_rest = value - step * (float(u & ~3) - 30.0f);
      fine[j] += fine_rest * fine_rest;
      coarse[j] += coarse_rest * coarse_rest;
      planes[0][i + j] = uint8_t(u >> 4);
      planes[1][i + j] = uint8_t(u >> 2 & 3);
      planes[2][i + j] = uint8_t(u & 3);
    }
  }
  step_[size_t(row)] = step;
  length_[size_t(row)] = length;
  coarse_error_[size_t(row)] = length_of(coarse);
  fine_error_[size_t(row)] = length_of(fine);
}

}  // namespace bitnet
