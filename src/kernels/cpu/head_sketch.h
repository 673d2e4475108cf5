#pragma once

#include "base/buffer.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace bitnet {

// A coarse copy of an output head that finds the largest logits without reading the head itself, certainly.
//
// Row w is approximated by w~ = step * (u - 127.5), u a code of 0..255 a weight, and from its upper six or four bits by
// step * (4 * (u >> 2) - 126) or step * (16 * (u >> 4) - 120). Activations x are approximated by x~ = q / s (int8), so that w~ . x~ is an integer times
// step / s. By Cauchy and Schwarz the product that linear() computes is within
//
//   bound = |w - w~| (|x| + |x - x~|) + |w| (|x - x~| + slack |x|)
//
// of it: w.x - w~.x~ = (w - w~).x~ + w.(x - x~), and |x~| <= |x| + |x - x~|. slack |w| |x| covers the rounding of
// linear()'s own lane sum, (n_cols / 16 + 8) 2^-24 |w| |x|, and that of the approximation and the bound (each a few
// 2^-24 of at most 4 |w| |x|): slack = (n_cols / 16 + 64) 2^-24. The lengths that are stored are rounded up.
//
// Codes are split into four planes of 2-bit fields in the layouts of ternary weights (kernel_table.h). The upper two are
// read for every row, so they lie in tiles; the others are read only for rows that may still win, so they lie in rows.
class HeadSketch {
 public:
  // 255 * 128 times the columns fit into int32.
  static constexpr int64_t kMaxCols = int64_t{1} << 16;
  static constexpr int kLevels = 3;  // four bits, six, eight

  static Result<std::unique_ptr<const HeadSketch>> build(const FloatSource& source, int64_t row_bytes, WeightType type,
                                                         const CpuKernels& kernels, ThreadPool& pool);

  size_t size_bytes() const { return tiles_.size_bytes() + rows_.size_bytes() + step_.size() * 5 * sizeof(float); }
  // What a search reads when the upper four bits rule nearly all rows out.
  size_t coarse_bytes() const { return tiles_.size_bytes(); }
  int64_t n_tiles() const { return n_tiles_; }
  int64_t tile_bytes() const { return tile_bytes_; }  // of one plane
  int64_t n_blocks() const { return tile_bytes_ / kBlockBytes; }
  // Bits 7, 6 (plane 0) and 5, 4 (plane 1) of the codes.
  const uint8_t* tile(int64_t i, int plane) const { return tiles_.as<uint8_t>() + (2 * i + plane) * tile_bytes_; }
  // Bits 3, 2 (level 1) or 1, 0 (level 2), row after row.
  const uint8_t* rows(int level) const { return rows_.as<uint8_t>() + (level - 1) * n_rows() * row_bytes_; }
  int64_t row_bytes() const { return row_bytes_; }  // of one level

  // Each [n_rows].
  const float* steps() const { return step_.data(); }
  const float* lengths() const { return length_.data(); }                               // at least |w|
  const float* errors(int level) const { return error_[size_t(level)].data(); }  // at least |w - w~|

 private:
  int64_t n_rows() const { return int64_t(step_.size()); }

  int64_t n_tiles_ = 0;
  int64_t tile_bytes_ = 0;  // of one plane
  int64_t row_bytes_ = 0;
  Buffer tiles_, rows_;
  std::vector<float> step_, length_;
  std::array<std::vector<float>, kLevels> error_;  // [n_rows]
};

}  // namespace bitnet
