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

// 1 / sqrt(mean of the squares + eps), from the sums of the blocks of n_cols squares in order.
__device__ inline float norm_factor(float sum, int n_cols, float eps) {
  return 1.0f / sqrtf(sum / float(n_cols) + eps);
}

}  // namespace bitnet::cuda
