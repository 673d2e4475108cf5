#pragma once

#include <cuda_bf16.h>
#include <cstdint>

// Values of activations as floats, a few at a time, and sums of a block in a fixed order.
namespace bitnet::cuda {

using Bf16 = __nv_bfloat16;

template <int V>
__device__ inline void load(const float* p, float (&v)[V]) {
  if constexpr (V == 4) {
    const float4 raw = *reinterpret_cast<const float4*>(p);
    v[0] = raw.x, v[1] = raw.y, v[2] = raw.z, v[3] = raw.w;
  } else {
    for (int i = 0; i < V; ++i) v[i] = p[i];
  }
}
template <int V>
__device__ inline void load(const Bf16* p, float (&v)[V]) {
  if constexpr (V == 4) {
    const uint2 raw = *reinterpret_cast<const uint2*>(p);
    v[0] = __uint_as_float(raw.x << 16), v[1] = __uint_as_float(raw.x & 0xffff0000u);
    v[2] = __uint_as_float(raw.y << 16), v[3] = __uint_as_float(raw.y & 0xffff0000u);
  } else {
    for (int i = 0; i < V; ++i) v[i] = __bfloat162float(p[i]);
  }
}
template <int V>
__device__ inline void store(float* p, const float (&v)[V]) {
  if constexpr (V == 4) {
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    for (int i = 0; i < V; ++i) p[i] = v[i];
  }
}
__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
template <int V>
__device__ inline void store(Bf16* p, const float (&v)[V]) {
  if constexpr (V == 4) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
  } else {
    for (int i = 0; i < V; ++i) p[i] = __float2bfloat16_rn(v[i]);
  }
}

struct SumOf {
  template <class T>
  __device__ static T join(T a, T b) {
    return a + b;
  }
};
struct MaxOf {
  __device__ static float join(float a, float b) { return fmaxf(a, b); }
};

// Over the block, whose size is a multiple of 32; every thread gets it. `shared` has room for a value a warp.
template <class Op, class T>
__device__ inline T block_join(T x, T* shared) {
  for (int step = 16; step > 0; step /= 2) x = Op::join(x, __shfl_xor_sync(0xffffffffu, x, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = shared[0];
  for (int warp = 1; warp < int(blockDim.x) / 32; ++warp) x = Op::join(x, shared[warp]);
  return x;
}

struct Pair {
  float a, b;
  __device__ Pair operator+(Pair other) const { return {a + other.a, b + other.b}; }
};
__device__ inline Pair block_sum(Pair x, Pair* shared) {
  for (int step = 16; step > 0; step /= 2) {
    x = x + Pair{__shfl_xor_sync(0xffffffffu, x.a, step), __shfl_xor_sync(0xffffffffu, x.b, step)};
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = shared[0];
  for (int warp = 1; warp < int(blockDim.x) / 32; ++warp) x = x + shared[warp];
  return x;
}

}  // namespace bitnet::cuda
