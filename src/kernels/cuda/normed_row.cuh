#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"

namespace bitnet::cuda {

// Squares of a row of n values, each lane of its lane sum in a row of its own, which a lane reads by fours without bank
// conflicts: n / 16 + 4 floats apart.
__device__ inline int square_stride(int n_cols) { return (n_cols / 16 + 3) / 4 * 4 + 4; }
__host__ __device__ constexpr size_t squares_bytes(int n_cols) {
  return size_t(16 * ((n_cols / 16 + 3) / 4 * 4 + 4)) * 4;
}

// The squares of columns 4i to 4i + 3.
__device__ inline void put_squares(const float4& v, int i, int stride, float* squares) {
  float* const to = squares + i % 4 * 4 * stride + i / 4;
  to[0] = v.x * v.x;
  to[stride] = v.y * v.y;
  to[2 * stride] = v.z * v.z;
  to[3 * stride] = v.w * v.w;
}

// 1 / sqrt(lane sum of the squares / n_cols + eps) (numerics.md 5), by a whole warp. A barrier before it.
__device__ inline float square_factor(const float* squares, int stride, int n_cols, float eps) {
  const float* const from = squares + threadIdx.x % 16 * stride;
  const int n = n_cols / 16, last = n / 4 * 4;
  float lane = 0.0f;
  // Each addition waits for the one before it; the loads are kept 16 values ahead of them.
  constexpr int kAhead = 4;
  float4 next[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) next[j] = *reinterpret_cast<const float4*>(from + min(4 * j, last));
  int i = 0;
  for (; i + 4 * kAhead <= n; i += 4 * kAhead) {
    float4 now[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      now[j] = next[j];
      next[j] = *reinterpret_cast<const float4*>(from + min(i + 4 * (kAhead + j), last));
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      lane += now[j].x;
      lane += now[j].y;
      lane += now[j].z;
      lane += now[j].w;
    }
  }
  for (; i < n; ++i) lane += from[i];
  const float mean = sum_lanes(lane) / float(n_cols);
  return 1.0f / sqrtf(mean + eps);
}

// The same for all threads of the block.
__device__ inline float row_factor(const float* squares, int stride, int n_cols, float eps) {
  __shared__ float shared_r;
  if (threadIdx.x < 32) {
    const float r = square_factor(squares, stride, n_cols, eps);
    if (threadIdx.x == 0) shared_r = r;
  }
  __syncthreads();
  return shared_r;
}

__device__ inline float4 scaled(const float4& v, float r, const float4& w) {
  return make_float4((v.x * r) * w.x, (v.y * r) * w.y, (v.z * r) * w.z, (v.w * r) * w.w);
}

// The int8 codes of four columns.
__device__ inline uint32_t code_word(const float4& y, float scale) {
  return uint32_t(uint8_t(int(quantized(y.x, scale)))) | uint32_t(uint8_t(int(quantized(y.y, scale)))) << 8 |
         uint32_t(uint8_t(int(quantized(y.z, scale)))) << 16 | uint32_t(uint8_t(int(quantized(y.w, scale)))) << 24;
}

// Reads norm(x) [n_cols] to shared memory `row`; `squares` has squares_bytes(). A barrier has to follow.
__device__ inline void load_normed_row(const float* x, const float* norm, float eps, int n_cols, float* row,
                                       float* squares) {
  const int n_fours = n_cols / 4, stride = square_stride(n_cols);
  for (int i = int(threadIdx.x); i < n_fours; i += int(blockDim.x)) {
    const float4 v = load4(x + 4 * i);
    reinterpret_cast<float4*>(row)[i] = v;
    put_squares(v, i, stride, squares);
  }
  __syncthreads();
  const float r = row_factor(squares, stride, n_cols, eps);
  for (int i = int(threadIdx.x); i < n_fours; i += int(blockDim.x)) {
    const float4 w = __ldg(reinterpret_cast<const float4*>(norm) + i);
    reinterpret_cast<float4*>(row)[i] = scaled(reinterpret_cast<const float4*>(row)[i], r, w);
  }
}

}  // namespace bitnet::cuda
