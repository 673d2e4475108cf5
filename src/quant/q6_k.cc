#include "quant/q6_k.h"

#include "base/half.h"
#include "quant/scale_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr int kGroups = 16, kGroupValues = 16;

float quant(float v) { return std::clamp(round_half_even(v), -32.0f, 31.0f); }

// The scale s for which the values s * q, q in -32..31, come closest to the group. Larger values weigh more (by their
// square): an error in them moves a product more. Steps to the largest value from 31.1 to 32.9 are tried; for the q
// that each gives, the best s is a least-squares fit.
float best_group_scale(const float* x) {
  float largest = 0.0f;
  for (int i = 0; i < kGroupValues; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  if (std::fabs(largest) < 1e-15f) return 0.0f;
  std::array<float, kGroupValues> unit{};  // x / largest, so that squares of squares neither overflow nor vanish
  for (int i = 0; i < kGroupValues; ++i) unit[size_t(i)] = x[i] / largest;
  float best_scale = 0.0f, best_gain = -1.0f;
  for (int step = -9; step <= 9; ++step) {
    const float inverse = -(32.0f + 0.1f * float(step));
    float xq = 0.0f, qq = 0.0f;
    for (int i = 0; i < kGroupValues; ++i) {
      const float u = unit[size_t(i)], q = quant(u * inverse), weight = u * u;
      xq += weight * u * q;
      qq += weight * q * q;
    }
    if (qq > 0.0f && xq * xq > best_gain * qq) {  // the error falls by xq^2 / qq
      best_gain = xq * xq / qq;
      best_scale = xq / qq;
    }
  }
  return best_scale * largest;
}

void pack(const std::array<uint8_t, 256>& q, uint8_t* low, uint8_t* high) {
  for (int half = 0; half < 2; ++half, low += 64, high += 32) {
    const uint8_t* v = q.data() + half * 128;
    for (int p = 0; p < 32; ++p) {
      low[p] = uint8_t((v[p] & 15) | (v[64 + p] & 15) << 4);
      low[32 + p] = uint8_t((v[32 + p] & 15) | (v[96 + p] & 15) << 4);
      high[p] = uint8_t(v[p] >> 4 | v[32 + p] >> 4 << 2 | v[64 + p] >> 4 << 4 | v[96 + p] >> 4 << 6);
    }
  }
}

}  // namespace

void encode_q6_k_block(const float* x, uint8_t* out) {
  std::array<float, kGroups> scales{};
  float largest = 0.0f;
  for (int g = 0; g < kGroups; ++g) {
    scales[size_t(g)] = best_group_scale(x + g * kGroupValues);
    if (std::fabs(scales[size_t(g)]) > std::fabs(largest)) largest = scales[size_t(g)];
  }
  // The largest scale becomes -128, the one end that int8 has to spare. A d that binary16 rounds to 0 is a block of 0.
  const uint16_t half = f32_to_f16(largest / -128.0f);
  const float d = f16_to_f32(half);
  std::array<uint8_t, 256> q{};
  for (int g = 0; g < kGroups; ++g) {
    const float ratio = d != 0.0f ? scales[size_t(g)] / d : 0.0f;
    const float scale = std::clamp(round_half_even(std::clamp(ratio, -128.0f, 127.0f)), -128.0f, 127.0f);
    const float step = d * scale;
    for (int i = 0; i < kGroupValues; ++i) {
      const int at = g * kGroupValues + i;
      q[size_t(at)] = uint8_t(32 + int(step != 0.0f ? quant(std::clamp(x[at] / step, -64.0f, 64.0f)) : 0.0f));
    }
    out[192 + g] = uint8_t(int8_t(scale));
  }
  pack(q, out, out + 128);
  std::memcpy(out + 208, &half, sizeof half);
}

}  // namespace bitnet
