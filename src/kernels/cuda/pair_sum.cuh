#pragma once

#include <cuda_runtime.h>

// Sums of squares by neighbours, in blocks of 256 (numerics.md 5). A tree of sums does not care which of two neighbours
// comes first, so that all lanes of a warp end with the same bits.
namespace bitnet::cuda {

constexpr int kPairBlock = 256;

__device__ inline float four_squares(const float4& v) { return (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w); }
__device__ inline float eight_squares(const float4& low, const float4& high) {
  return four_squares(low) + four_squares(high);
}
__device__ inline float eight_squares(const float (&x)[8]) {
  return eight_squares(make_float4(x[0], x[1], x[2], x[3]), make_float4(x[4], x[5], x[6], x[7]));
}

// Of a whole warp, lane after lane; every lane gets it. Of eight squares a lane it is the sum of a block.
__device__ inline float warp_pair_sum(float x) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// a of the lanes without bit `step` and b of those with it, each with its neighbour's.
__device__ inline float merge_neighbours(float a, float b, int step) {
  const bool second = (int(threadIdx.x) & step) != 0;
  return (second ? b : a) + __shfl_xor_sync(0xffffffffu, second ? a : b, step);
}
// Sums of n <= 4 blocks by a whole warp, of four squares a lane of each block's lower and upper half; block i's sum is
// lane 2i's. Sums of several blocks take each other's places on the way, so that there are few shuffles.
template <int n>
__device__ inline float block_pair_sums(const float (&fours)[2 * n]) {
  static_assert(n >= 1 && n <= 4);
  float x[4] = {};
#pragma unroll
  for (int i = 0; i < n; ++i) x[i] = merge_neighbours(fours[2 * i], fours[2 * i + 1], 1);
  if (n > 2) x[2] = merge_neighbours(x[2], x[3], 2);
  float sum = n > 1 ? merge_neighbours(x[0], x[1], 2) : x[0] + __shfl_xor_sync(0xffffffffu, x[0], 2);
  sum = n > 2 ? merge_neighbours(sum, x[2], 4) : sum + __shfl_xor_sync(0xffffffffu, sum, 4);
  sum += __shfl_xor_sync(0xffffffffu, sum, 8);
  sum += __shfl_xor_sync(0xffffffffu, sum, 16);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 1);
}

// 1 / sqrt(mean of the squares + eps), from the sums of the blocks of n_cols squares in order.
__device__ inline float norm_factor(float sum, int n_cols, float eps) {
  return 1.0f / sqrtf(sum * (1.0f / float(n_cols)) + eps);
}

}  // namespace bitnet::cuda
