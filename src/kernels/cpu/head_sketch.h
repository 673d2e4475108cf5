#pragma once

#include "base/buffer.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace bitnet {

// A coarse copy of an output head that finds the largest logits without reading the head itself, certainly.
//
// Row w is approximated by w~ = step * (u - 31.5), u a code of 0..63 a weight, and, from the upper four bits alone, by
// step * (4 * (u >> 2) - 30). Activations x are approximated by x~ = q / s (int8), so that w~ . x~ is an integer times
// step / s. By Cauchy and Schwarz the product that linear() computes is within
//
//   bound = |w - w~| (|x| + |x - x~|) + |w| (|x - x~| + slack |x|)
//
// of it: w.x - w~.x~ = (w - w~).x~ + w.(x - x~), and |x~| <= |x| + |x - x~|. slack |w| |x| covers the rounding of
// linear()'s own lane sum, (n_cols / 16 + 8) 2^-24 |w| |x|, and that of the approximation and the bound (each a few
// 2^-24 of at most 4 |w| |x|): slack = (n_cols / 16 + 64) 2^-24. The lengths that are stored are rounded up.
//
// Codes are split into three planes of 2-bit fields in the layout of ternary weights (kernel_table.h), so that
// matvec_tile serves them all: tile i's two coarse planes stand together and are read for every row; the fine planes
// follow and are read only for tiles in which a row may still win.
class HeadSketch {
 public:
  // 63 * 128 * 2 times the columns fit into int32.
  static constexpr int64_t kMaxCols = int64_t{1} << 16;

  using Widen = void (*)(const uint8_t* row, int64_t n_cols, float* out);
  static Result<std::unique_ptr<const HeadSketch>> build(const FloatSource& source, int64_t row_bytes, Widen widen,
                                                         ThreadPool& pool);

  size_t size_bytes() const { return planes_.size_bytes() + step_.size() * 4 * sizeof(float); }
  int64_t n_tiles() const { return n_tiles_; }
  int64_t tile_bytes() const { return tile_bytes_; }  // of one plane
  int64_t n_blocks() const { return tile_bytes_ / kBlockBytes; }
  // Bits 5, 4 (plane 0) and 3, 2 (plane 1) of the codes; bits 1, 0.
  const uint8_t* coarse(int64_t tile, int plane) const { return plane_of(tile, plane); }
  const uint8_t* fine(int64_t tile) const { return plane_of(tile, 2); }

  float step(int64_t row) const { return step_[size_t(row)]; }
  float length(int64_t row) const { return length_[size_t(row)]; }              // at least |w|
  float coarse_error(int64_t row) const { return coarse_error_[size_t(row)]; }  // at least |w - w~| from four bits
  float fine_error(int64_t row) const { return fine_error_[size_t(row)]; }

 private:
  uint8_t* plane_of(int64_t tile, int plane) const {
    const int64_t index = plane < 2 ? 2 * tile + plane : 2 * n_tiles_ + tile;
    return planes_.as<uint8_t>() + index * tile_bytes_;
  }
  void add_row(const float* w, int64_t n_cols, int64_t row, uint8_t* codes);

  int64_t n_tiles_ = 0;
  int64_t tile_bytes_ = 0;  // of one plane
  Buffer planes_;
  std::vector<float> step_, length_, coarse_error_, fine_error_;  // [n_rows]
};

}  // namespace bitnet
