#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"

namespace bitnet::cuda {

// Squares of a row of n values, each lane of its lane sum in a row of its own, which a lane reads by fours without bank
// conflicts: n / 16 + 4 floats apart.
__device__ inline int square_stride(int n_cols) { return (n_cols / 16 + 3) / 4 * 4 + 4; }
__host__ __device__ constexpr size_t squares_bytes(int n_cols) { return size_t(16 * ((n_cols / 16 + 3) / 4 * 4 + 4)) * 4; }

// Reads x [n_cols] to shared memory `row`; with norm weights it becomes (x * r) * weight (numerics.md 5). `squares` has
// squares_bytes(). A thread may then read the groups of four that it wrote, i = 4 (threadIdx.x + k blockDim.x); others
// want a barrier.
__device__ inline void load_normed_row(const float* x, const float* norm, float eps, int n_cols, float* row,
                                       float* squares) {
  __shared__ float shared_r;
  const int n_fours = n_cols / 4, stride = square_stride(n_cols);
  for (int i = int(threadIdx.x); i < n_fours; i += int(blockDim.x)) {
    const float4 v = load4(x + 4 * i);
    reinterpret_cast<float4*>(row)[i] = v;
    if (norm == nullptr) continue;
    float* const to = squares + i % 4 * 4 * stride + i / 4;
    to[0] = v.x * v.x;
    to[stride] = v.y * v.y;
    to[2 * stride] = v.z * v.z;
    to[3 * stride] = v.w * v.w;
  }
  if (norm == nullptr) return;
  __syncthreads();
  if (threadIdx.x < 32) {
    const float* const from = squares + threadIdx.x % 16 * stride;
    const int n = n_cols / 16;
    float lane = 0.0f;
    int i = 0;
#pragma unroll 4
    for (; i + 4 <= n; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      lane += v.x;
      lane += v.y;
      lane += v.z;
      lane += v.w;
    }
    for (; i < n; ++i) lane += from[i];
    const float mean = sum_lanes(lane) / float(n_cols);
    if (threadIdx.x == 0) shared_r = 1.0f / sqrtf(mean + eps);
  }
  __syncthreads();
  const float r = shared_r;
  for (int i = int(threadIdx.x); i < n_fours; i += int(blockDim.x)) {
    float4 v = reinterpret_cast<float4*>(row)[i];
    const float4 w = __ldg(reinterpret_cast<const float4*>(norm) + i);
    v.x = (v.x * r) * w.x;
    v.y = (v.y * r) * w.y;
    v.z = (v.z * r) * w.z;
    v.w = (v.w * r) * w.w;
    reinterpret_cast<float4*>(row)[i] = v;
  }
}

}  // namespace bitnet::cuda
