#pragma once

#include "base/host_device.h"

#include <cstdint>

// How ternary codes lie on the device. A tile of 16 rows and 128 columns is 512 bytes: 32 lanes of a warp with 16 bytes
// each, so that one 16-byte load a lane brings what four mma.m16n8k32 (or wgmma m64nNk32) instructions take as their A
// fragment. Lane 4g + t has in its word s (columns 32s to 32s + 31) the codes of rows g and g + 8: plane p, the bits
// 8b + 2p, is row g + 8 (p & 1), column 32s + 16 (p >> 1) + 4t + b. Tiles lie row tile after row tile, in each one
// column tile after the other. Rows and columns that a matrix does not have are code 0; their sums are never used,
// their activations are 0.
namespace bitnet::cuda {

constexpr int kTileRows = 16;
constexpr int kTileCols = 128;
constexpr int kTileWords = 128;
constexpr int kTileBytes = 4 * kTileWords;

BN_HOST_DEVICE constexpr int64_t n_tiles(int64_t n, int64_t per_tile) { return (n + per_tile - 1) / per_tile; }

struct CodePlace {
  int64_t word;
  int shift;
};
BN_HOST_DEVICE constexpr CodePlace code_place(int64_t row, int64_t col, int64_t n_col_tiles) {
  const int r = int(row % kTileRows), c = int(col % kTileCols);
  const int lane = r % 8 * 4 + c % 16 / 4, plane = r / 8 + c % 32 / 16 * 2;
  const int64_t tile = row / kTileRows * n_col_tiles + col / kTileCols;
  return {tile * kTileWords + lane * 4 + c / 32, c % 4 * 8 + plane * 2};
}

// Word number `word` of the tiles from codes [n_rows, n_cols] as bytes; `word` counts from the first of these rows.
BN_HOST_DEVICE inline uint32_t pack_word(const uint8_t* codes, int64_t n_rows, int64_t n_cols, int64_t n_col_tiles,
                                         int64_t word) {
  const int64_t tile = word / kTileWords;
  const int lane = int(word % kTileWords) / 4, s = int(word % 4);
  const int64_t row0 = tile / n_col_tiles * kTileRows + lane / 4;
  const int64_t col0 = tile % n_col_tiles * kTileCols + s * 32 + lane % 4 * 4;
  uint32_t packed = 0;
  for (int plane = 0; plane < 4; ++plane) {
    const int64_t row = row0 + plane % 2 * 8;
    for (int b = 0; b < 4; ++b) {
      const int64_t col = col0 + plane / 2 * 16 + b;
      if (row < n_rows && col < n_cols) packed |= uint32_t(codes[row * n_cols + col]) << (8 * b + 2 * plane);
    }
  }
  return packed;
}

// Where word j (columns 4j to 4j + 3) of 128 activations goes so that lane t reads the eight words that its part of a
// tile multiplies, for s = 0 to 3 columns 32s + 4t... and 32s + 16 + 4t..., as two 16-byte loads from 8t.
BN_HOST_DEVICE constexpr int fragment_word(int j) { return j % 4 * 8 + j / 8 * 2 + j / 4 % 2; }

}  // namespace bitnet::cuda
