#pragma once

#include <cstdint>

namespace bitnet {

struct QuantizedRowInfo {
  float inv_scale;  // 1 / s
  int32_t sum;      // of q
};
// Per-token absmax int8 (BitNet b1.58; numerics.md point 2): s = 127 / max(absmax(x), 1e-5),
// q = clamp(round half even(x * s), -128, 127). The scalar specification of every back end's quantiser.
QuantizedRowInfo quantize_row_absmax(const float* x, int64_t n, int8_t* q);

// Per-token absmean int4 (BitNet a4.8): s = sqrt(7) / max(mean|x|, 1e-5), q = clamp(round half even(x * s), -8, 7).
QuantizedRowInfo quantize_row_int4(const float* x, int64_t n, int8_t* q);

// Top-k sparse int8 (BitNet a4.8): the k values of largest magnitude (of equal ones those that stand first) as
// quantize_row_absmax has them, the others 0.
QuantizedRowInfo quantize_row_topk(const float* x, int64_t n, int64_t k, int8_t* q);

}  // namespace bitnet
