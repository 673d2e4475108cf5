#pragma once

#include "kernels/cuda/best_token.cuh"
#include "kernels/cuda/normed_row.cuh"

// What is known of a row's product with the head's input before it is computed (head_sketch.cu).
namespace bitnet::cuda {

constexpr float kEnlarged = 1.0f + 1e-4f;

// How far a product may be from the exact one.
struct HeadInput {
  float inv_scale, length, error, slack;
};
__device__ inline float bound_of(const Sketch& sketch, int64_t row, const HeadInput& x) {
  return (sketch.errors[row] * (x.length + x.error) + sketch.lengths[row] * (x.error + x.slack * x.length)) * kEnlarged;
}
// Of a product whose upper bound is `most`; the same bits wherever they are asked for, so that as many rows reach a
// floor as it was chosen for.
__device__ inline float lower_bound(const Sketch& sketch, int64_t row, const HeadInput& x, float most) {
  return most - 2.0f * bound_of(sketch, row, x) * kEnlarged;
}
__device__ inline float slack_of(int n_cols) { return float(n_cols / 16 + 64) * 0x1p-24f; }

// The exact product of a row with x, by a warp with room for the row.
__device__ inline float exact_product(const FloatTable& table, int64_t row, const float* x, uint8_t* row_bytes) {
  const int lane = int(threadIdx.x % 32), n_cols = int(table.n_cols);
  const uint4* const from = reinterpret_cast<const uint4*>(table.data + row * table.row_bytes);
#pragma unroll 10
  for (int j = lane; j < table.row_bytes / 16; j += 32) reinterpret_cast<uint4*>(row_bytes)[j] = __ldg(from + j);
  __syncwarp();
  float sum = 0.0f;
#pragma unroll 8
  for (int i = lane % 16; i < n_cols; i += 16) sum += widen(table.type, row_bytes, i) * x[i];
  sum = sum_lanes(sum);
  __syncwarp();
  return sum;
}

// Of one token whose upper bounds are there: a floor that at least n_best products reach, and no more than have to.
cudaError_t raise_floor(const Launcher& launcher, const TokenHead& call, int64_t n_best);

}  // namespace bitnet::cuda
