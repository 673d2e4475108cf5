#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/pair_sum.cuh"

namespace bitnet::cuda {

// The squares of a row are summed by warps that have four columns a lane: a half of a block of rule 5 each. The halves'
// sums lie in shared memory, in order.
__host__ __device__ constexpr int n_halves(int n_cols) { return (n_cols + kPairBlock / 2 - 1) / (kPairBlock / 2); }
__host__ __device__ constexpr size_t halves_bytes(int n_cols) { return size_t((n_halves(n_cols) + 3) / 4 * 16); }

// r of the row (numerics.md 5). `halves` is 16 bytes aligned; a barrier before it.
__device__ inline float row_factor(const float* halves, int n_cols, float eps) {
  const int n = n_halves(n_cols);
  float sum = 0.0f;
  int i = 0;
#pragma unroll 4
  for (; i + 4 <= n; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(halves + i);
    sum += four.x + four.y;
    sum += four.z + four.w;
  }
  for (; i < n; i += 2) sum += i + 1 < n ? halves[i] + halves[i + 1] : halves[i];
  return norm_factor(sum, n_cols, eps);
}

__device__ inline float4 scaled(const float4& v, float r, const float4& w) {
  return make_float4((v.x * r) * w.x, (v.y * r) * w.y, (v.z * r) * w.z, (v.w * r) * w.w);
}

// The int8 codes of four columns.
__device__ inline uint32_t code_word(const float4& y, float scale) {
  return uint32_t(uint8_t(int(quantized(y.x, scale)))) | uint32_t(uint8_t(int(quantized(y.y, scale)))) << 8 |
         uint32_t(uint8_t(int(quantized(y.z, scale)))) << 16 | uint32_t(uint8_t(int(quantized(y.w, scale)))) << 24;
}

// Reads norm(x) [n_cols] to shared memory `row`; `halves` has halves_bytes(). A barrier has to follow.
__device__ inline void load_normed_row(const float* x, const float* norm, float eps, int n_cols, float* row,
                                       float* halves) {
  const int n_fours = n_cols / 4, lane = int(threadIdx.x) % 32;
  for (int first = int(threadIdx.x) - lane; first < n_fours; first += int(blockDim.x)) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (first + lane < n_fours) reinterpret_cast<float4*>(row)[first + lane] = v = load4(x + 4 * (first + lane));
    const float sum = warp_pair_sum(four_squares(v));
    if (lane == 0) halves[first / 32] = sum;
  }
  __syncthreads();
  const float r = row_factor(halves, n_cols, eps);
  for (int i = int(threadIdx.x); i < n_fours; i += int(blockDim.x)) {
    const float4 w = __ldg(reinterpret_cast<const float4*>(norm) + i);
    reinterpret_cast<float4*>(row)[i] = scaled(reinterpret_cast<const float4*>(row)[i], r, w);
  }
}

}  // namespace bitnet::cuda
