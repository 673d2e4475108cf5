#include "quant/activations.h"

#include <cmath>

namespace bitnet {

QuantizedRowInfo quantize_row_absmax(const float* x, int64_t n, int8_t* q) {
  float absmax = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = std::fabs(x[i]);
    absmax = magnitude > absmax ? magnitude : absmax;
  }
  const float scale = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);
  // Adding 1.5 * 2^23 leaves a float no bits below 1, so the adder itself rounds half to even.
  constexpr float kRounder = 12582912.0f;
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    float v = (x[i] * scale + kRounder) - kRounder;
    v = v < 127.0f ? v : 127.0f;
    v = v > -128.0f ? v : -128.0f;
    q[i] = int8_t(v);
    sum += q[i];
  }
  return {1.0f / scale, sum};
}

}  // namespace bitnet
