#include "kernels/cpu/head_sketch.h"

#include "base/checked.h"
#include "base/parallel_status.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/source_checks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr float kRange = 5.76f;  // of all codes, in root mean squares: near the least error of the upper levels
constexpr float kRoundUp = 1.0f + 2e-4f;  // more than the rounding of up to kMaxCols squares in lanes loses
constexpr int64_t kLanes = 16;

}  // namespace

Result<std::unique_ptr<HeadSketch>> HeadSketch::reserve(const FloatSource& source, const CpuKernels& kernels) {
  auto sketch = std::make_unique<HeadSketch>();
  const Packing packing = sketch->packing_ = {kernels.digits != nullptr};
  const int n_levels = sketch->n_levels();
  const int64_t n_rows = source.n_rows;
  sketch->n_tiles_ = (n_rows + kTileRows - 1) / kTileRows;
  sketch->tile_bytes_ = packing.tile_bytes(source.n_cols);
  sketch->row_bytes_ = packing.row_bytes(source.n_cols);
  sketch->n_rows_ = n_rows;
  const auto take = [&](std::string_view part, int64_t size_bytes, Buffer& out) -> Result<bool> {
    BN_ASSIGN_OR_RETURN(LayoutMemory memory, take_memory(source.take, part, size_t(size_bytes)));
    out = std::move(memory.bytes);
    return memory.ready;
  };
  const int64_t bounds_bytes = (2 + n_levels) * n_rows * int64_t{sizeof(float)};
  BN_ASSIGN_OR_RETURN(const bool tiles, take("tiles", 2 * sketch->n_tiles_ * sketch->tile_bytes_, sketch->tiles_));
  BN_ASSIGN_OR_RETURN(const bool rows, take("rows", (n_levels - 1) * n_rows * sketch->row_bytes_, sketch->rows_));
  BN_ASSIGN_OR_RETURN(const bool bounds, take("bounds", bounds_bytes, sketch->bounds_));
  sketch->ready_.store(tiles && rows && bounds, std::memory_order_release);
  return sketch;
}

Status HeadSketch::fill(const Rows& rows, int64_t row_bytes, int64_t n_cols, WeightType type, const CpuKernels& kernels,
                        ThreadPool& pool) {
  const int n_levels = this->n_levels();
  // `w` in whole lanes. A row of zeros, or of values whose squares overflow, gets errors that say so: 0 or infinity.
  const auto add_row = [&](const float* w, int64_t padded_cols, int64_t row, int8_t* planes) {
    float squares = 0, errors[kMaxLevels];
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
    const float step = std::isfinite(length) ? kRange / float(n_codes()) * rms : 0.0f;
    kernels.sketch_row(w, padded_cols, step, step > 1e-30f ? 1.0f / step : 0.0f, radix(), planes, errors);
    bounds_at(0)[row] = step;
    bounds_at(1)[row] = length;
    for (int level = 0; level < n_levels; ++level) {
      bounds_at(2 + level)[row] = std::sqrt(errors[level]) * kRoundUp;
    }
  };
  const auto build_tiles = [&](int64_t begin, int64_t end) -> Status {
    // Rows as stored, one row as floats (whole lanes, zeros behind it), the digits of its codes.
    const int64_t padded_cols = round_up(n_cols, kLanes);
    std::vector<uint8_t> scratch(size_t(kTileRows * row_bytes));
    std::vector<float> w(static_cast<size_t>(padded_cols));
    std::vector<int8_t> planes(size_t(n_levels + 1) * w.size());
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileRows, n = std::min(kTileRows, n_rows_ - first);
      BN_ASSIGN_OR_RETURN(const uint8_t* stored, rows(first, n, scratch.data()));
      for (int64_t i = 0; i < n; ++i) {
        kernels.widen[size_t(type)](stored + i * row_bytes, n_cols, w.data());
        add_row(w.data(), padded_cols, first + i, planes.data());
        for (int p = 0; p <= n_levels; ++p) {
          const auto* const digits = reinterpret_cast<const uint8_t*>(planes.data()) + p * padded_cols;
          if (p < 2) {
            pack_codes(packing_, digits, n_cols, kBlockBytes, tile_at(tile, p) + 4 * i);
          } else {
            pack_codes(packing_, digits, n_cols, 4, rows_at(p - 1) + (first + i) * row_bytes_);
          }
        }
      }
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(pool, n_tiles_, build_tiles));
  ready_.store(true, std::memory_order_release);
  return ok();
}

}  // namespace bitnet
