#pragma once

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"

#include <cuda_fp16.h>

// Rows of a cache on their way through shared memory, for attention of single tokens.
namespace bitnet::cuda {

// In shared memory the 16-byte pieces of row r stand at piece ^ (r's swizzle), so that neither eight rows' equal pieces
// nor four rows' neighbouring ones share banks. `mask` keeps a row's pieces within the row.
__device__ inline int swizzle_mask(int n_pieces) { return min(n_pieces & -n_pieces, 8) - 1; }
__device__ inline int swizzle(int r, int mask) { return ((r & 3) << 1 | (r >> 2 & 1)) & mask; }

// Eight consecutive values of a row, i a multiple of 8, and one value of a row that is not swizzled.
template <TableType kType>
struct Stored;
template <>
struct Stored<TableType::kF16> {
  uint4 raw;
  __device__ void load(const uint8_t* row, int i, int swizzled) {
    raw = *reinterpret_cast<const uint4*>(row + ((i / 8 ^ swizzled) << 4));
  }
  __device__ float at(int e) const {
    const uint32_t word = e < 2 ? raw.x : e < 4 ? raw.y : e < 6 ? raw.z : raw.w;
    return __half2float(__ushort_as_half((unsigned short)(e % 2 == 0 ? word & 0xffffu : word >> 16)));
  }
  static __device__ float value(const uint8_t* row, int i) {
    return __half2float(reinterpret_cast<const __half*>(row)[i]);
  }
};
template <>
struct Stored<TableType::kF32> {
  float4 low, high;
  __device__ void load(const uint8_t* row, int i, int swizzled) {
    low = *reinterpret_cast<const float4*>(row + ((i / 4 ^ swizzled) << 4));
    high = *reinterpret_cast<const float4*>(row + (((i / 4 + 1) ^ swizzled) << 4));
  }
  __device__ float at(int e) const {
    const float4& v = e < 4 ? low : high;
    return e % 4 == 0 ? v.x : e % 4 == 1 ? v.y : e % 4 == 2 ? v.z : v.w;
  }
  static __device__ float value(const uint8_t* row, int i) { return reinterpret_cast<const float*>(row)[i]; }
};
template <>
struct Stored<TableType::kQ8_0> {
  uint16_t pairs[4];
  float d;
  __device__ void load(const uint8_t* row, int i, int) {
    const uint8_t* const block = row + i / 32 * 34;
    d = half_at(block);
#pragma unroll
    for (int j = 0; j < 4; ++j) pairs[j] = reinterpret_cast<const uint16_t*>(block + 2 + i % 32)[j];
  }
  __device__ float at(int e) const { return d * float(int8_t(pairs[e / 2] >> (e % 2 * 8))); }
  static __device__ float value(const uint8_t* row, int i) {
    const uint8_t* const block = row + i / 32 * 34;
    return half_at(block) * float(int8_t(block[2 + i % 32]));
  }
};

// A row of d values as the cache stores it; `thread` counts from 0 to at least d - 1. A barrier before and after.
template <TableType kType>
__device__ inline void store_row(const float* x, int d, int thread, uint8_t* row) {
  if constexpr (kType == TableType::kQ8_0) {
    if (thread >= 0 && thread < d / 32) store_q8_0(x + 32 * thread, row + 34 * thread);
  } else if (thread >= 0 && thread < d) {
    if constexpr (kType == TableType::kF16) {
      reinterpret_cast<__half*>(row)[thread] = __float2half_rn(x[thread]);
    } else {
      reinterpret_cast<float*>(row)[thread] = x[thread];
    }
  }
}

// Rotates row [head_dim] in shared memory by n_pairs threads. A barrier before and after.
__device__ inline void rotate(float* row, const Rope& rope, int position, int thread) {
  if (thread < 0 || thread >= rope.n_pairs) return;
  const float c = __ldg(rope.cos + int64_t(position) * rope.n_pairs + thread);
  const float s = __ldg(rope.sin + int64_t(position) * rope.n_pairs + thread);
  const float a = row[thread], b = row[thread + rope.n_pairs];
  row[thread] = a * c - b * s;
  row[thread + rope.n_pairs] = b * c + a * s;
}

// Starts copies of bytes [offset, offset + n_bytes) of the rows of positions [first, end) to rows of n_bytes in shared
// memory. Rows whose size is no multiple of 16 are copied whole, from a position that is one.
template <TableType kType, bool kSwizzled>
__device__ inline void copy_rows(const Cache& cache, const uint8_t* plane, int head, int first, int end, int offset,
                                 int n_bytes, uint8_t* to, int thread, int n_threads) {
  if constexpr (kType == TableType::kQ8_0) {
    for (int p = first; p < end; p += kPagePositions - p % kPagePositions) {
      const uint8_t* const from = plane + cache_row(cache, head, p) * cache.row_bytes;
      const int n = min(end - p, kPagePositions - p % kPagePositions) * n_bytes;
      for (int i = thread * 16; i < n; i += n_threads * 16) async_copy16(to + (p - first) * n_bytes + i, from + i);
    }
  } else {
    const int n_pieces = n_bytes / 16, mask = kSwizzled ? swizzle_mask(n_pieces) : 0;
    for (int i = thread; i < (end - first) * n_pieces; i += n_threads) {
      const int r = i / n_pieces, piece = i - r * n_pieces;
      const uint8_t* const from = plane + cache_row(cache, head, first + r) * cache.row_bytes + offset;
      async_copy16(to + r * n_bytes + ((piece ^ swizzle(r, mask)) << 4), from + piece * 16);
    }
  }
}

}  // namespace bitnet::cuda
