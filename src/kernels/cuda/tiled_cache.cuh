#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/kv_tiles.h"

// The int8 cache (numerics.md 14). A head's 64 positions of a page are a tile: their scales, and their codes as the A
// operands of mma.m16n8k32, so that a lane of a warp loads 16 bytes of what it multiplies and nothing has to go through
// shared memory. Keys are [position / 16][dimension / 32], values [dimension / 16][position / 32] of operands.
namespace bitnet::cuda {

constexpr float kCodeLimit = 127.0f;
constexpr int kOperand_bytes = 512;

// Where in an operand the code of row r and column c lies.
__device__ inline int operand_at(int r, int c) {
  return (r % 8 * 4 + c % 16 / 4) * 16 + (r / 8 + c / 16 * 2) * 4 + c % 4;
}
// Where in the eight columns of a B operand, two words a lane, column n's code of row k lies.
__device__ inline int column_at(int n, int k) { return (k / 16 * 32 + n * 4) * 4 + k % 16; }

// One head's tiles: scales of kPagePositions, then codes.
struct Tiles {
  uint8_t *first_key, *first_value;
  const int32_t* pages;
  uint32_t page_bytes;
  __device__ Tiles(const Cache& cache, int kv_head)
      : first_key(cache.k + kv_head * cache.head_rows * cache.row_bytes),
        first_value(cache.v + kv_head * cache.head_rows * cache.row_bytes),
        pages(cache.pages),
        page_bytes(uint32_t(cache.page_rows * cache.row_bytes)) {}
  __device__ uint64_t at(int tile) const {
    return uint64_t(uint32_t(pages == nullptr ? tile : pages[tile])) * page_bytes;
  }
  __device__ uint8_t* keys(int tile) const { return first_key + at(tile); }
  __device__ uint8_t* values(int tile) const { return first_value + at(tile); }
};

// A head of 32 kParts values, by a warp: lane l has those l, l + 32...
template <int kParts>
struct TiledHead {
  static constexpr int kDim = 32 * kParts;
  static constexpr int kBlock = kParts & -kParts;  // parts that the rotation mixes
  static constexpr float kUnit = 1.0f / float(32 * kBlock);
  float x[kParts];
  float scale;

  __device__ void load(const float* from, const Rope& rope, int position, int lane) {
    const int n_pairs = int(rope.n_pairs);
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      const int i = 32 * j + lane;
      x[j] = load1(from + i);
      if (i >= 2 * n_pairs) continue;
      const bool first = i < n_pairs;
      const int64_t at = int64_t(position) * n_pairs + (first ? i : i - n_pairs);
      const float other = load1(from + (first ? i + n_pairs : i - n_pairs)), c = __ldg(rope.cos + at);
      const float s = __ldg(rope.sin + at);
      x[j] = first ? x[j] * c - other * s : x[j] * c + other * s;
    }
  }
  __device__ void rotate(int lane) {
#pragma unroll
    for (int h = 1; h < 32; h *= 2) {
#pragma unroll
      for (int j = 0; j < kParts; ++j) {
        const float other = __shfl_xor_sync(kFullWarp, x[j], h);
        x[j] = (lane & h) != 0 ? other - x[j] : x[j] + other;
      }
    }
#pragma unroll
    for (int h = 1; h < kBlock; h *= 2) {
#pragma unroll
      for (int j = 0; j < kParts; ++j) {
        if ((j & h) != 0) continue;
        const float a = x[j], b = x[j + h];
        x[j] = a + b;
        x[j + h] = a - b;
      }
    }
  }
  // Rotates, and gives put(code, i) each code.
  template <class Put>
  __device__ void encode(int lane, const Put& put) {
    rotate(lane);
    float largest = kTileAbsmaxFloor;
#pragma unroll
    for (int j = 0; j < kParts; ++j) largest = spec_max(fabsf(x[j]), largest);
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, step));
    scale = largest / kCodeLimit;
    const float inverse = kCodeLimit / largest;
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      float code = (x[j] * inverse + kRoundMagic) - kRoundMagic;
      code = code < kCodeLimit ? code : kCodeLimit;
      put(int8_t(int(code > -kCodeLimit ? code : -kCodeLimit)), 32 * j + lane);
    }
  }
};

// A new key or value to its tile, by a warp; returns its scale.
template <int kParts>
__device__ inline float append_tiled(const float* from, uint8_t* tile, const Rope& rope, int position, bool key,
                                     int lane) {
  TiledHead<kParts> head;
  head.load(from, key ? rope : Rope(), position, lane);
  const int p = position % kPagePositions;
  head.encode(lane, [&](int8_t code, int i) {
    const int operand = key ? p / 16 * kParts + i / 32 : i / 16 * 2 + p / 32;
    const int at = key ? operand_at(p % 16, i % 32) : operand_at(i % 16, p % 32);
    tile[kTileScales_bytes + operand * kOperand_bytes + at] = uint8_t(code);
  });
  if (lane == 0) reinterpret_cast<float*>(tile)[p] = head.scale;
  return head.scale;
}

}  // namespace bitnet::cuda
