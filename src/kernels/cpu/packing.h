#pragma once

#include "kernels/cpu/kernel_table.h"

#include <cstdint>

namespace bitnet {

// How codes lie in bytes (kernel_table.h): four 2-bit fields, or five ternary digits.
struct Packing {
  bool base3 = false;

  int64_t n_fields() const { return base3 ? 5 : 4; }
  int64_t block_cols() const { return base3 ? kBase3BlockCols : kBlockCols; }
  int64_t n_blocks(int64_t n_cols) const { return (n_cols + block_cols() - 1) / block_cols(); }
  int64_t tile_bytes(int64_t n_cols) const { return n_blocks(n_cols) * kBlockBytes; }
  // Of a matrix for some rows or some columns, in whole vectors.
  int64_t row_bytes(int64_t n_cols) const {
    return (4 * n_blocks(n_cols) + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
  }
  int64_t vector_rows() const { return n_fields() * kVectorBytes; }  // that a vector of a column holds
  int64_t column_bytes(int64_t n_rows) const { return (n_rows + vector_rows() - 1) / vector_rows() * kVectorBytes; }
  const TernaryKernels& of(const CpuKernels& kernels) const { return base3 ? *kernels.digits : kernels.fields; }
  // Blocks of kBlockCols columns that a tile unpacks to for matmul_tile, and their codes, zeros behind the tile's own:
  // [n_code_blocks(n_cols) * kBlockCols * kTileRows].
  int64_t n_code_blocks(int64_t n_cols) const { return Packing{}.n_blocks(n_blocks(n_cols) * block_cols()); }
  void unpack_tile(const CpuKernels& kernels, const uint8_t* tile, int64_t n_cols, uint8_t* codes) const;
  // What a code counts as field or digit j of a byte.
  uint8_t place(int64_t j) const;
};

// One row of codes [n_cols], padded to whole blocks with code 1, as words `stride` bytes apart: kBlockBytes in a tile,
// 4 in a row.
void pack_codes(Packing packing, const uint8_t* codes, int64_t n_cols, int64_t stride, uint8_t* out);
// One row of a head's upper codes [n_cols], padded with code 0, as row `row` of a tile (kSketchBlockCols).
void pack_sketch_row(const uint8_t* codes, int64_t n_cols, int64_t row, uint8_t* tile);
// Field or digit j of each of n bytes.
void take_codes(Packing packing, const uint8_t* bytes, int64_t n, int64_t j, uint8_t* codes);

}  // namespace bitnet
