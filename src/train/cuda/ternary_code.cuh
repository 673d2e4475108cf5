#pragma once

#include <cuda_runtime.h>
#include <cstdint>

namespace bitnet::cuda {

// The two roundings of quant/ternary.h: the scale is a reciprocal, alpha the scale's.
struct TernaryScale {
  float scale, alpha;
};
__device__ inline TernaryScale ternary_scale(double sum, int64_t n) {
  constexpr float kFloor = 1e-5f;
  const float scale = 1.0f / fmaxf(float(sum / double(n)), kFloor);
  return {scale, 1.0f / scale};
}

__device__ inline float ternary(float w, float scale) {
  const float v = w * scale;
  return v > 0.5f ? 1.0f : v < -0.5f ? -1.0f : 0.0f;
}

}  // namespace bitnet::cuda
