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

// One value of a row as the cache stores it, where a value stands alone.
template <TableType kType>
__device__ inline void store_value(float x, int i, uint8_t* row) {
  if constexpr (kType == TableType::kF16) {
    reinterpret_cast<__half*>(row)[i] = __float2half_rn(x);
  } else if constexpr (kType == TableType::kF32) {
    reinterpret_cast<float*>(row)[i] = x;
  }
}

// The angles of pair `thread`, read before they are wanted.
struct Angle {
  float c = 1.0f, s = 0.0f;
};
__device__ inline Angle angle_of(const Rope& rope, int position, int thread) {
  if (thread >= rope.n_pairs) return {};
  const int64_t at = int64_t(position) * rope.n_pairs + thread;
  return {__ldg(rope.cos + at), __ldg(rope.sin + at)};
}

// Reads a head of d values, rotates it and gives put(value, i) each of them, by 128 threads.
template <class Put>
__device__ inline void load_rotated(const float* from, const Rope& rope, const Angle& angle, int d, int thread,
                                    const Put& put) {
  const int n_pairs = int(rope.n_pairs);
  if (thread < n_pairs) {
    const float a = load1(from + thread), b = load1(from + thread + n_pairs);
    put(a * angle.c - b * angle.s, thread);
    put(b * angle.c + a * angle.s, thread + n_pairs);
  }
  for (int i = 2 * n_pairs + thread; i < d; i += 128) put(load1(from + i), i);
}

// Starts copies of the first n_rows rows at `from`, bytes [offset, offset + n_bytes) of each, to rows of n_bytes in
// shared memory. n_pieces, of 16 bytes a row, is 0 where rows are copied whole and one after the other, because their
// size is no multiple of 16. kPower: it is a power of two.
template <bool kSwizzled, bool kPower>
__device__ inline void copy_rows(const uint8_t* from, int row_bytes, int offset, int n_rows, int n_bytes, int n_pieces,
                                 uint8_t* to, int thread, int n_threads) {
  if (n_rows <= 0) return;
  if (n_pieces == 0) {
    for (int i = thread * 16; i < n_rows * n_bytes; i += n_threads * 16) async_copy16(to + i, from + i);
    return;
  }
  const int mask = kSwizzled ? swizzle_mask(n_pieces) : 0;
  const int shift = kPower ? __ffs(n_pieces) - 1 : 0;
#pragma unroll 2
  for (int i = thread; i < n_rows * n_pieces; i += n_threads) {
    const int r = kPower ? i >> shift : i / n_pieces, piece = i - r * n_pieces;
    async_copy16(to + r * n_bytes + ((piece ^ swizzle(r, mask)) << 4), from + r * row_bytes + offset + piece * 16);
  }
}

// Sizes of a cache's rows: compile-time constants for heads of kDim values, 0 for any.
template <TableType kType, int kDim>
struct RowSizes {
  static BN_HOST_DEVICE constexpr int bytes_of(int d) {
    return kType == TableType::kF32 ? 4 * d : kType == TableType::kF16 ? 2 * d : d / 32 * 34;
  }
  static __device__ int d(const Cache& cache) { return kDim > 0 ? kDim : int(cache.head_dim); }
  static __device__ int bytes(const Cache& cache) { return kDim > 0 ? bytes_of(kDim) : int(cache.row_bytes); }
  static __device__ int pieces(int n_bytes) { return kType == TableType::kQ8_0 ? 0 : n_bytes / 16; }
};

}  // namespace bitnet::cuda
