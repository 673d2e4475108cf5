#include "kernels/cpu/head_sketch.h"

#include "base/checked.h"
#include "base/copied.h"
#include "base/parallel_status.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/packing.h"
#include "kernels/source_checks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr float kRange = 6.2f;            // of all codes, in root mean squares: near the least error of the upper ones
constexpr float kRoundUp = 1.0f + 2e-4f;  // more than the rounding of up to kMaxCols squares in lanes loses
constexpr int64_t kLanes = 16;

}  // namespace

Result<std::unique_ptr<HeadSketch>> HeadSketch::reserve(const FloatSource& source) {
  auto sketch = std::make_unique<HeadSketch>();
  const int64_t n_rows = source.n_rows;
  sketch->n_tiles_ = (n_rows + kTileRows - 1) / kTileRows;
  sketch->n_blocks_ = (source.n_cols + kSketchBlockCols - 1) / kSketchBlockCols;
  sketch->row_bytes_ = Packing{}.row_bytes(source.n_cols);
  sketch->n_rows_ = n_rows;
  const auto take = [&](std::string_view part, int64_t size_bytes, Buffer& out) -> Result<bool> {
    BN_ASSIGN_OR_RETURN(LayoutMemory memory, take_memory(source.take, part, size_t(size_bytes)));
    out = std::move(memory.bytes);
    return memory.ready;
  };
  const int64_t bounds_bytes = (2 + kLevels) * n_rows * int64_t{sizeof(float)};
  BN_ASSIGN_OR_RETURN(const bool tiles, take("tiles", sketch->n_tiles_ * sketch->tile_bytes(), sketch->tiles_));
  BN_ASSIGN_OR_RETURN(const bool rows, take("rows", n_rows * sketch->row_bytes_, sketch->rows_));
  BN_ASSIGN_OR_RETURN(const bool bounds, take("bounds", bounds_bytes, sketch->bounds_));
  sketch->ready_.store(tiles && rows && bounds, std::memory_order_release);
  return sketch;
}

Status HeadSketch::fill(const Rows& rows, int64_t row_bytes, int64_t n_cols, WeightType type, const CpuKernels& kernels,
                        ThreadPool& pool) {
  // `w` in whole lanes. A row of zeros, or of values whose squares overflow, gets errors that say so: 0 or infinity.
  const auto add_row = [&](const float* w, int64_t padded_cols, int64_t row, int8_t* codes) {
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
    const float rms = length / std::sqrt(float(n_cols));
    const float step = std::isfinite(length) ? kRange / float(kCodes) * rms : 0.0f;
    kernels.sketch_row(w, padded_cols, step, step > 1e-30f ? 1.0f / step : 0.0f, codes, codes + padded_cols, errors);
    bounds_at(0)[row] = step;
    bounds_at(1)[row] = length;
    for (int level = 0; level < kLevels; ++level) {
      bounds_at(2 + level)[row] = std::sqrt(errors[level]) * kRoundUp;
    }
  };
  const auto build_tiles = [&](int64_t begin, int64_t end) -> Status {
    // Rows as stored, one row as floats (whole lanes, zeros behind it), its upper and lower codes.
    const int64_t padded_cols = round_up(n_cols, kLanes);
    std::vector<uint8_t> scratch(size_t(kTileRows * row_bytes));
    std::vector<float> w(static_cast<size_t>(padded_cols));
    std::vector<int8_t> codes(2 * w.size());
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileRows, n = std::min(kTileRows, n_rows_ - first);
      BN_ASSIGN_OR_RETURN(const uint8_t* stored, rows(first, n, scratch.data()));
      for (int64_t i = 0; i < n; ++i) {
        kernels.widen[size_t(type)](stored + i * row_bytes, n_cols, w.data());
        add_row(w.data(), padded_cols, first + i, codes.data());
        const auto* const upper = reinterpret_cast<const uint8_t*>(codes.data());
        pack_sketch_row(upper, n_cols, i, tile_at(tile));
        pack_codes(Packing{}, upper + padded_cols, n_cols, 4, rows_.as<uint8_t>() + (first + i) * row_bytes_);
      }
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(pool, n_tiles_, build_tiles));
  count_moved(tiles_.size_bytes() + rows_.size_bytes() + bounds_.size_bytes());
  ready_.store(true, std::memory_order_release);
  return ok();
}

}  // namespace bitnet
