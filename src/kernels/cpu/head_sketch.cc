#include "kernels/cpu/head_sketch.h"

#include "base/checked.h"
#include "base/parallel_status.h"
#include "kernels/cpu/cpu_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr float kRelativeStep = 0.0225f;  // of the root mean square: near the least error of the upper six bits
constexpr float kRoundUp = 1.0f + 1e-4f;  // more than the rounding of a sum of squares in lanes loses
constexpr int64_t kLanes = 16;

// Two bits of each code.
void take_plane(const uint8_t* codes, int64_t n, int shift, uint8_t* plane) {
  for (int64_t i = 0; i < n; ++i) plane[i] = uint8_t(codes[i] >> shift & 3);
}

}  // namespace

Result<std::unique_ptr<const HeadSketch>> HeadSketch::build(const FloatSource& source, int64_t row_bytes,
                                                            WeightType type, const CpuKernels& kernels,
                                                            ThreadPool& pool) {
  const int64_t n_rows = source.n_rows, n_cols = source.n_cols, n_blocks = (n_cols + kBlockCols - 1) / kBlockCols;
  auto sketch = std::make_unique<HeadSketch>();
  sketch->n_tiles_ = (n_rows + kTileRows - 1) / kTileRows;
  sketch->tile_bytes_ = n_blocks * kBlockBytes;
  sketch->row_bytes_ = round_up(4 * n_blocks, kVectorBytes);
  BN_ASSIGN_OR_RETURN(sketch->tiles_, Buffer::allocate(size_t(2 * sketch->n_tiles_ * sketch->tile_bytes_)));
  BN_ASSIGN_OR_RETURN(sketch->rows_, Buffer::allocate(size_t(2 * n_rows * sketch->row_bytes_)));
  sketch->step_.resize(size_t(n_rows));
  sketch->length_.resize(size_t(n_rows));
  for (auto& errors : sketch->error_) errors.resize(size_t(n_rows));

  // `w` in whole lanes. A row of zeros, or of values whose squares overflow, gets errors that say so: 0 or infinity.
  const auto add_row = [&](const float* w, int64_t padded_cols, int64_t row, uint8_t* codes) {
    float squares = 0, errors[kLevels];
    kernels.dot[size_t(WeightType::kF32)]({.rows = reinterpret_cast<const uint8_t*>(w),
                                           .row_bytes = padded_cols * int64_t{sizeof(float)},
                                           .n_rows = 1,
                                           .x = w,
                                           .x_stride = padded_cols,
                                           .n_x = 1,
                                           .n_cols = padded_cols,
                                           .out = &squares,
                                           .out_stride = 1});
    const float length = std::sqrt(squares) * kRoundUp;
    const float step = std::isfinite(length) ? kRelativeStep * length / std::sqrt(float(n_cols)) : 0.0f;
    kernels.sketch_row(w, padded_cols, step, step > 1e-30f ? 1.0f / step : 0.0f, codes, errors);
    sketch->step_[size_t(row)] = step;
    sketch->length_[size_t(row)] = length;
    for (size_t level = 0; level < kLevels; ++level) {
      sketch->error_[level][size_t(row)] = std::sqrt(errors[level]) * kRoundUp;
    }
  };
  const auto build_tiles = [&](int64_t begin, int64_t end) -> Status {
    // Rows as stored, one row as floats (whole lanes, zeros behind it), its codes, one plane of them.
    const int64_t padded_cols = round_up(n_cols, kLanes);
    std::vector<std::byte> stored(size_t(kTileRows * row_bytes));
    std::vector<float> w(static_cast<size_t>(padded_cols));
    std::vector<uint8_t> codes(static_cast<size_t>(padded_cols)), plane(codes.size());
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileRows, n = std::min(kTileRows, n_rows - first);
      BN_RETURN_IF_ERROR(source.read_rows(first, n, stored.data()));
      for (int64_t i = 0; i < n; ++i) {
        kernels.widen[size_t(type)](reinterpret_cast<const uint8_t*>(stored.data()) + i * row_bytes, n_cols, w.data());
        add_row(w.data(), padded_cols, first + i, codes.data());
        for (int p = 0; p < 4; ++p) {
          take_plane(codes.data(), padded_cols, 6 - 2 * p, plane.data());
          if (p < 2) {
            pack_fields_row(plane.data(), n_cols, kBlockBytes, const_cast<uint8_t*>(sketch->tile(tile, p)) + 4 * i);
          } else {
            pack_fields_row(plane.data(), n_cols, 4,
                            const_cast<uint8_t*>(sketch->rows(p - 1)) + (first + i) * sketch->row_bytes_);
          }
        }
      }
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(pool, sketch->n_tiles_, build_tiles));
  return std::unique_ptr<const HeadSketch>(std::move(sketch));
}

}  // namespace bitnet
