#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/float_constants.h"

#include <cuda_fp16.h>
#include <cstdint>

// The float arithmetic of kernels/float_spec.h on the device. Everything under kernels/cuda is compiled with
// -fmad=false, so that no multiplication is fused with an addition.
namespace bitnet::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// The 16 lanes of a lane sum (numerics.md 4) are the lanes of half a warp; its first lane has the sum.
__device__ inline float fold_lanes(float lane) {
  for (int half = 8; half > 0; half /= 2) lane += __shfl_down_sync(kFullWarp, lane, half, 16);
  return lane;
}
__device__ inline float sum_lanes(float lane) { return __shfl_sync(kFullWarp, fold_lanes(lane), 0, 16); }

__device__ inline float spec_max(float a, float b) { return a > b ? a : b; }

__device__ inline float power_of_two(float k) {
  return __uint_as_float(__float_as_uint(k + (kRoundMagic + 127.0f)) << 23);
}

__device__ inline float spec_exp(float x) {
  x = kExpMin > x ? kExpMin : x;
  x = kExpMax < x ? kExpMax : x;
  const float n = (x * kLog2E + kRoundMagic) - kRoundMagic;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = kExpC6 * r + kExpC5;
  p = p * r + kExpC4;
  p = p * r + kExpC3;
  p = p * r + kExpC2;
  p = ((r * r) * p + r) + 1.0f;
  const float n1 = (n * 0.5f + kRoundMagic) - kRoundMagic;
  return (p * power_of_two(n1)) * power_of_two(n - n1);
}

__device__ inline float gated(bool relu2, float gate, float up) {
  if (relu2) return gate > 0.0f ? (gate * gate) * up : 0.0f;
  return (gate / (1.0f + spec_exp(-gate))) * up;
}

// numerics.md 2.
__device__ inline float quantizing_scale(float absmax) {
  return 127.0f / (absmax > kAbsmaxFloor ? absmax : kAbsmaxFloor);
}
__device__ inline float quantized(float x, float scale) {
  float v = (x * scale + kRoundMagic) - kRoundMagic;
  v = v < 127.0f ? v : 127.0f;
  return v > -128.0f ? v : -128.0f;
}

__device__ inline float half_at(const uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));  // blocks have even sizes
}

// Value i of a stored row, exactly as dequantize() in quant/blocks.h gives it.
__device__ inline float widen(TableType type, const uint8_t* row, int64_t i) {
  switch (type) {
    case TableType::kF32: return reinterpret_cast<const float*>(row)[i];
    case TableType::kF16: return __half2float(reinterpret_cast<const __half*>(row)[i]);
    case TableType::kBF16: return __uint_as_float(uint32_t(reinterpret_cast<const uint16_t*>(row)[i]) << 16);
    case TableType::kQ8_0: {
      const uint8_t* const block = row + i / 32 * 34;
      return half_at(block) * float(int8_t(block[2 + i % 32]));
    }
    case TableType::kQ4_0: {
      const uint8_t* const block = row + i / 32 * 18;
      const int p = int(i % 32), byte = block[2 + p % 16];
      return half_at(block) * float((p < 16 ? byte & 15 : byte >> 4) - 8);
    }
    case TableType::kQ4_K: {
      const uint8_t* const block = row + i / 256 * 144;
      const uint8_t* const packed = block + 4;
      const int group = int(i % 256) / 32;
      int scale = packed[group % 4] & 63, least = packed[group % 4 + 4] & 63;
      if (group >= 4) {
        const int low = packed[group + 4];
        scale = (low & 15) | packed[group - 4] >> 6 << 4;
        least = low >> 4 | packed[group] >> 6 << 4;
      }
      const int q = block[16 + group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15;
      return (half_at(block) * float(scale)) * float(q) - half_at(block + 2) * float(least);
    }
    case TableType::kQ6_K: {
      const uint8_t* const block = row + i / 256 * 210;
      const int half = int(i % 256) / 128, g = int(i % 128) / 32, p = int(i % 32);
      const int low = block[half * 64 + g % 2 * 32 + p] >> (g / 2 * 4) & 15;
      const int high = block[128 + half * 32 + p] >> (2 * g) & 3;
      const float scale = half_at(block + 208) * float(int8_t(block[192 + half * 8 + g * 2 + p / 16]));
      return scale * float((low | high << 4) - 32);
    }
    case TableType::kI8: break;
  }
  return 0.0f;
}

// Row `from` as floats, by the whole block. Sixteen bytes at a time where that goes: the row may lie in the host's
// memory.
__device__ inline void widen_row(const FloatTable& table, const uint8_t* from, float* to) {
  const bool halves = table.type == TableType::kF16 || table.type == TableType::kBF16;
  if (!halves || table.n_cols % 8 != 0) {
    for (int64_t i = threadIdx.x; i < table.n_cols; i += blockDim.x) to[i] = widen(table.type, from, i);
    return;
  }
  for (int64_t i = threadIdx.x; i < table.n_cols / 8; i += blockDim.x) {
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from) + i);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    float values[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const uint16_t bits = uint16_t(e % 2 == 0 ? words[e / 2] : words[e / 2] >> 16);
      values[e] =
          table.type == TableType::kF16 ? __half2float(__ushort_as_half(bits)) : __uint_as_float(uint32_t(bits) << 16);
    }
    reinterpret_cast<float4*>(to)[2 * i] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[2 * i + 1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

// One block of 32 values, as quantize_q8_0() in quant/blocks.h.
__device__ inline void store_q8_0(const float* x, uint8_t* to) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) largest = largest < fabsf(x[i]) ? fabsf(x[i]) : largest;
  const float d = largest / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
  *reinterpret_cast<__half*>(to) = __float2half_rn(d);
  for (int i = 0; i < 32; ++i) {
    float v = roundf(x[i] * inverse);
    v = v < -127.0f ? -127.0f : v > 127.0f ? 127.0f : v;
    to[2 + i] = uint8_t(int8_t(v == v ? v : 0.0f));
  }
}

// The largest of `x` over the block, and the sum; every thread gets it. `shared` has room for a value a warp.
__device__ inline float block_max(float x, float* shared) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, step));
  const int n_warps = int(blockDim.x + 31) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = shared[0];
  for (int warp = 1; warp < n_warps; ++warp) x = fmaxf(x, shared[warp]);
  return x;
}
__device__ inline int block_sum(int x, int* shared) {
  x = __reduce_add_sync(kFullWarp, x);
  const int n_warps = int(blockDim.x + 31) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = shared[0];
  for (int warp = 1; warp < n_warps; ++warp) x += shared[warp];
  return x;
}

}  // namespace bitnet::cuda
