#include "quant/activations.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

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

QuantizedRowInfo quantize_row_int4(const float* x, int64_t n, int8_t* q) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += double(std::fabs(x[i]));
  const float mean = n > 0 ? float(total / double(n)) : 0.0f;
  const float scale = std::sqrt(7.0f) / (mean > 1e-5f ? mean : 1e-5f);
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float v = std::clamp(x[i] * scale, -9.0f, 8.0f);
    q[i] = int8_t(std::clamp(std::nearbyint(v), -8.0f, 7.0f));
    sum += q[i];
  }
  return {1.0f / scale, sum};
}

QuantizedRowInfo quantize_row_topk(const float* x, int64_t n, int64_t k, int8_t* q) {
  QuantizedRowInfo info = quantize_row_absmax(x, n, q);
  if (k >= n) return info;
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto larger = [x](int64_t a, int64_t b) {
    const float first = std::fabs(x[a]), second = std::fabs(x[b]);
    return first != second ? first > second : a < b;
  };
  std::nth_element(order.begin(), order.begin() + std::max<int64_t>(k, 0), order.end(), larger);
  for (size_t i = size_t(std::max<int64_t>(k, 0)); i < order.size(); ++i) {
    info.sum -= q[order[i]];
    q[order[i]] = 0;
  }
  return info;
}

}  // namespace bitnet
