#pragma once

#include <cstdint>

namespace bitnet {

// Per-token absmax int8 (BitNet b1.58; numerics.md point 2): s = 127 / max(absmax(x), 1e-5),
// q = clamp(round half even(x * s), -128, 127). The scalar specification of every back end's quantiser.
struct QuantizedRowInfo {
  float inv_scale;  // 1 / s
  int32_t sum;      // of q
};
QuantizedRowInfo quantize_row_absmax(const float* x, int64_t n, int8_t* q);

}  // namespace bitnet
