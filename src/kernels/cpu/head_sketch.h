#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"
#include "memory/buffer.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace bitnet {

// A coarse copy of an output head that finds the largest logits without reading the head itself, certainly.
//
// Each weight of row w has a code u of n digits to the base r: four bits twice over (r = 4, n = 4), or five ternary
// digits (r = 3, n = 5) where five of them fit a byte. From its upper 2 + level digits, c = floor(u / unit) with unit =
// r^(n - 2 - level), w is approximated by w~ = step * (unit * c - (r^n - unit) / 2). Activations x are approximated by
// x~ = q / s (int8), so that w~ . x~ is an integer times step / 2s. By Cauchy and Schwarz the product that linear()
// computes is within
//
//   bound = |w - w~| (|x| + |x - x~|) + |w| (|x - x~| + slack |x|)
//
// of it: w.x - w~.x~ = (w - w~).x~ + w.(x - x~), and |x~| <= |x| + |x - x~|. slack |w| |x| covers the rounding of
// linear()'s own lane sum, (n_cols / 16 + 8) 2^-24 |w| |x|, and that of the approximation and the bound (each a few
// 2^-24 of at most 4 |w| |x|): slack = (n_cols / 16 + 64) 2^-24. The lengths that are stored are rounded up.
//
// Codes are split into planes, one a digit, in the layouts of ternary weights (kernel_table.h). The upper two are read
// for every row, so they lie in tiles; the others are read only for rows that may still win, so they lie in rows.
class HeadSketch {
 public:
  // 255 * 128 times the columns fit into int32.
  static constexpr int64_t kMaxCols = int64_t{1} << 16;
  static constexpr int kMaxLevels = 4;

  // Takes the sketch's memory; it is ready at once where `source.take` has it from an earlier load.
  static Result<std::unique_ptr<HeadSketch>> reserve(const FloatSource& source, const CpuKernels& kernels);
  // Rows of a table [n_rows, row_bytes] in memory, or read into `scratch`.
  using Rows = std::function<Result<const uint8_t*>(int64_t first, int64_t n_rows, uint8_t* scratch)>;
  // Makes it ready from the rows of the table, in columns of `type`. By one caller at a time.
  Status fill(const Rows& rows, int64_t row_bytes, int64_t n_cols, WeightType type, const CpuKernels& kernels,
              ThreadPool& pool);
  bool ready() const { return ready_.load(std::memory_order_acquire); }

  size_t size_bytes() const { return tiles_.size_bytes() + rows_.size_bytes() + bounds_.size_bytes(); }
  Packing packing() const { return packing_; }  // of each plane
  int n_levels() const { return packing_.base3 ? 4 : 3; }
  int32_t radix() const { return packing_.base3 ? 3 : 4; }
  int32_t n_codes() const { return packing_.base3 ? 243 : 256; }
  int32_t unit(int level) const {
    int32_t unit = 1;
    for (int i = level + 1; i < n_levels(); ++i) unit *= radix();
    return unit;
  }
  int64_t n_tiles() const { return n_tiles_; }
  int64_t tile_bytes() const { return tile_bytes_; }  // of one plane
  int64_t n_blocks() const { return tile_bytes_ / kBlockBytes; }
  // The first digit of the codes (plane 0) or the second.
  const uint8_t* tile(int64_t i, int plane) const { return tile_at(i, plane); }
  // The digit that a level above 0 adds, row after row.
  const uint8_t* rows(int level) const { return rows_at(level); }
  int64_t row_bytes() const { return row_bytes_; }  // of one level

  // Each [n_rows].
  const float* steps() const { return bounds_at(0); }
  const float* lengths() const { return bounds_at(1); }                  // at least |w|
  const float* errors(int level) const { return bounds_at(2 + level); }  // at least |w - w~|

 private:
  uint8_t* tile_at(int64_t i, int plane) const { return tiles_.as<uint8_t>() + (2 * i + plane) * tile_bytes_; }
  uint8_t* rows_at(int level) const { return rows_.as<uint8_t>() + (level - 1) * n_rows_ * row_bytes_; }
  float* bounds_at(int64_t i) const { return bounds_.as<float>() + i * n_rows_; }

  std::atomic<bool> ready_{false};
  Packing packing_;
  int64_t n_rows_ = 0;
  int64_t n_tiles_ = 0;
  int64_t tile_bytes_ = 0;  // of one plane
  int64_t row_bytes_ = 0;
  Buffer tiles_, rows_, bounds_;
};

}  // namespace bitnet
