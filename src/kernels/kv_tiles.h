#pragma once

#include <cstdint>

// Keys and values as integers of 8 or 4 bits (numerics.md 14): a head's cache is a sequence of tiles of kTilePositions
// positions, each their scales, float32 [kTilePositions], and then their codes, four neighbours of every sum side by
// side as dot product instructions want them:
//   keys    [byte column / 4][position: 64][byte column % 4]
//   values  [byte column / 16][position / 4: 16][byte column % 16][position % 4]
// With 8 bits byte column c is dimension c, an int8. With 4 bits its low half is dimension c and its high half
// dimension c + head_dim / 2, each in 0..15. Constants and plain structs only: the instruction sets of cpu/ include
// this.
namespace bitnet {

constexpr int64_t kTilePositions = 64;
constexpr int64_t kTileScales_bytes = kTilePositions * 4;
// A head's dimensions are a multiple of the former and at most the latter.
constexpr int64_t kTileDims = 32, kMaxTileDims = 512;
// Scales are of at least this absolute value, so that no reciprocal overflows.
constexpr float kTileAbsmaxFloor = 1e-30f;

constexpr int64_t kv_tile_bytes(int64_t head_dim, int64_t bits) {
  return kTileScales_bytes + kTilePositions * head_dim * bits / 8;
}
constexpr int64_t key_code_at(int64_t byte_column, int64_t position) {
  return kTileScales_bytes + (byte_column / 4 * kTilePositions + position) * 4 + byte_column % 4;
}
constexpr int64_t value_code_at(int64_t byte_column, int64_t position) {
  return kTileScales_bytes + ((byte_column / 16 * 16 + position / 4) * 16 + byte_column % 16) * 4 + position % 4;
}
// Dimensions that a rotation mixes: the largest power of two that divides head_dim.
constexpr int64_t rotation_block(int64_t head_dim) { return head_dim & -head_dim; }

}  // namespace bitnet
