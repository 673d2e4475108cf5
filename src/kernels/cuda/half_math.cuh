#pragma once

#include <cuda_fp16.h>
#include <cstdint>

// Arithmetic of prompts' attention, whose bits are the device's own.
namespace bitnet::cuda {

__device__ inline uint32_t half_pair(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace bitnet::cuda
