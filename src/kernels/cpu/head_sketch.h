#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/buffer.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace bitnet {

// A coarse copy of an output head that finds the largest logits without reading the head itself, certainly.
//
// Each weight of row w has a code u of 7 bits. From its upper 5 bits (level 0) or from all (level 1), c = floor(u /
// unit) with unit = 4 or 1, w is approximated by w~ = step * (unit * c - (128 - unit) / 2). Activations x are
// approximated by x~ = q / s (int8), so that w~ . x~ is an integer times step / 2s. By Cauchy and Schwarz the product
// that linear() computes is within
//
//   bound = |w - w~| (|x| + |x - x~|) + |w| (|x - x~| + slack |x|)
//
// of it: w.x - w~.x~ = (w - w~).x~ + w.(x - x~), and |x~| <= |x| + |x - x~|. slack |w| |x| covers the rounding of
// linear()'s own lane sum, (n_cols / 16 + 8) 2^-24 |w| |x|, and that of the approximation and the bound (each a few
// 2^-24 of at most 4 |w| |x|): slack = (n_cols / 16 + 64) 2^-24. The lengths that are stored are rounded up.
//
// Upper codes are read for every row, so they lie in tiles (kSketchBlockCols); lower codes are read only for rows that
// may still win, so they lie in rows, as 2-bit fields. With independent weights 5 bits leave a sixth of the rows open
// and 7 a few hundred of 128,256; 4 bits would leave all open, 6 cost more bytes than they save.
class HeadSketch {
 public:
  // 127 * 128 times the columns fit into int32.
  static constexpr int64_t kMaxCols = int64_t{1} << 16;
  static constexpr int kLevels = 2;
  static constexpr int32_t kCodes = 128;

  // Takes the sketch's memory; it is ready at once where `source.take` has it from an earlier load.
  static Result<std::unique_ptr<HeadSketch>> reserve(const FloatSource& source);
  // Rows of a table [n_rows, row_bytes] in memory, or read into `scratch`.
  using Rows = std::function<Result<const uint8_t*>(int64_t first, int64_t n_rows, uint8_t* scratch)>;
  // Makes it ready from the rows of the table, in columns of `type`. By one caller at a time.
  Status fill(const Rows& rows, int64_t row_bytes, int64_t n_cols, WeightType type, const CpuKernels& kernels,
              ThreadPool& pool);
  bool ready() const { return ready_.load(std::memory_order_acquire); }

  size_t size_bytes() const { return tiles_.size_bytes() + rows_.size_bytes() + bounds_.size_bytes(); }
  static constexpr int32_t unit(int level) { return level == 0 ? 4 : 1; }
  int64_t n_tiles() const { return n_tiles_; }
  int64_t tile_bytes() const { return n_blocks_ * kSketchBlockBytes; }
  int64_t n_blocks() const { return n_blocks_; }
  const uint8_t* tile(int64_t i) const { return tile_at(i); }
  // The lower codes, row after row.
  const uint8_t* rows() const { return rows_.as<uint8_t>(); }
  int64_t row_bytes() const { return row_bytes_; }

  // Each [n_rows].
  const float* steps() const { return bounds_at(0); }
  const float* lengths() const { return bounds_at(1); }                  // at least |w|
  const float* errors(int level) const { return bounds_at(2 + level); }  // at least |w - w~|

 private:
  uint8_t* tile_at(int64_t i) const { return tiles_.as<uint8_t>() + i * tile_bytes(); }
  float* bounds_at(int64_t i) const { return bounds_.as<float>() + i * n_rows_; }

  std::atomic<bool> ready_{false};
  int64_t n_rows_ = 0;
  int64_t n_tiles_ = 0;
  int64_t n_blocks_ = 0;  // of a tile
  int64_t row_bytes_ = 0;
  Buffer tiles_, rows_, bounds_;
};

}  // namespace bitnet
