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

// A floor as HeadRow has it, of a row or of none in particular.
__device__ inline unsigned long long floor_key(float floor, int row) {
  return static_cast<unsigned long long>(ordered(floor)) << 32 | uint32_t(~row);
}
__device__ inline float floor_of(unsigned long long key) { return unordered(unsigned(key >> 32)); }

// The exact product of a row with x, by a warp. The rounded products come to shared memory first, by all lanes; then
// each lane of the sum adds its own.
__device__ inline float exact_product(const FloatTable& table, int64_t row, const float* x, float* products, int lane) {
  const uint8_t* const from = table.data + row * table.row_bytes;
  const int n_cols = int(table.n_cols);
  if (table.type == TableType::kF16) {
    const auto half = [](uint32_t bits) { return __half2float(__ushort_as_half(uint16_t(bits))); };
#pragma unroll 10
    for (int i = lane; i < n_cols / 8; i += 32) {
      const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from) + i);
      const float4 low = reinterpret_cast<const float4*>(x)[2 * i],
                   high = reinterpret_cast<const float4*>(x)[2 * i + 1];
      reinterpret_cast<float4*>(products)[2 * i] =
          make_float4(half(raw.x) * low.x, half(raw.x >> 16) * low.y, half(raw.y) * low.z, half(raw.y >> 16) * low.w);
      reinterpret_cast<float4*>(products)[2 * i + 1] = make_float4(half(raw.z) * high.x, half(raw.z >> 16) * high.y,
                                                                   half(raw.w) * high.z, half(raw.w >> 16) * high.w);
    }
  } else {
    for (int i = lane; i < n_cols; i += 32) products[i] = widen(table.type, from, i) * x[i];
  }
  __syncwarp();
  float sum = 0.0f;
#pragma unroll 16
  for (int i = lane % 16; i < n_cols; i += 16) sum += products[i];
  __syncwarp();
  return sum_lanes(sum);
}

// How many warps a block of such has, and its memory: x, and each warp's products.
inline int product_warps(const FloatTable& table) {
  return 9 * table.n_cols * int64_t{sizeof(float)} <= 200 * 1024 ? 8 : 4;
}
inline size_t product_bytes(const FloatTable& table, int n_warps) {
  return size_t(1 + n_warps) * size_t(table.n_cols) * sizeof(float);
}

// Of one token whose upper bounds are there: a floor that at least n_best products reach, and no more than have to.
cudaError_t raise_floor(const Launcher& launcher, const TokenHead& call, int64_t n_best);

}  // namespace bitnet::cuda
