#include "quant/small_blocks.h"

#include "base/half.h"
#include "quant/scale_search.h"

#include <cstring>

namespace bitnet {
namespace {

float half_at(const uint8_t* p) { return f16_to_f32(uint16_t(p[0] | p[1] << 8)); }
// Stores a scale and gives what is left of it.
float put_half(float value, uint8_t* out) {
  const uint16_t bits = f32_to_f16(value);
  out[0] = uint8_t(bits);
  out[1] = uint8_t(bits >> 8);
  return f16_to_f32(bits);
}

// The nearest of `levels` levels, scale * q + min.
uint8_t level(float x, float scale, float min, int levels) {
  if (scale == 0.0f) return 0;
  return uint8_t(std::clamp(round_half_even(std::clamp((x - min) / scale, -1.0f, 64.0f)), 0.0f, float(levels - 1)));
}

// 32 values of 4 or 5 bits: value p in the low nibble of byte p, value 16 + p in the high one; fifth bits in front.
template <int kBits>
void pack_32(const uint8_t* q, uint8_t* out) {
  if (kBits == 5) {
    std::memset(out, 0, 4);
    for (int i = 0; i < 32; ++i) out[i / 8] |= uint8_t((q[i] >> 4) << i % 8);
    out += 4;
  }
  for (int p = 0; p < 16; ++p) out[p] = uint8_t((q[p] & 15) | (q[16 + p] & 15) << 4);
}
template <int kBits>
void unpack_32(const uint8_t* in, uint8_t* q) {
  const uint8_t* low = kBits == 5 ? in + 4 : in;
  for (int p = 0; p < 16; ++p) {
    q[p] = low[p] & 15;
    q[16 + p] = low[p] >> 4;
  }
  if (kBits == 4) return;
  for (int i = 0; i < 32; ++i) q[i] |= uint8_t((in[i / 8] >> i % 8 & 1) << 4);
}

template <int kBits>
void decode_symmetric(const uint8_t* block, float* out) {
  uint8_t q[32];
  unpack_32<kBits>(block + 2, q);
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = d * float(int(q[i]) - (1 << (kBits - 1)));
}
template <int kBits>
void encode_symmetric(const float* x, uint8_t* out) {
  constexpr int kSteps = 1 << (kBits - 1);
  const float d = put_half(best_symmetric_scale<32>(x, kSteps), out);
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) {
    const float v = d == 0.0f ? 0.0f : round_half_even(std::clamp(x[i] / d, -64.0f, 64.0f));
    q[i] = uint8_t(int(std::clamp(v, -float(kSteps), float(kSteps - 1))) + kSteps);
  }
  pack_32<kBits>(q, out + 2);
}

template <int kBits>
void decode_affine(const uint8_t* block, float* out) {
  uint8_t q[32];
  unpack_32<kBits>(block + 4, q);
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = d * float(q[i]) + m;
}
template <int kBits>
void encode_affine(const float* x, uint8_t* out) {
  const AffineScale best = best_affine_scale<32>(x, 1 << kBits, false);
  const float d = put_half(best.scale, out), m = put_half(best.min, out + 2);
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = level(x[i], d, m, 1 << kBits);
  pack_32<kBits>(q, out + 4);
}

// Q4_K and Q5_K: 12 bytes hold eight 6-bit scales and eight 6-bit minima: 0..3 in the low six bits of bytes 0-3 and
// 4-7; 4..7 with their low four bits in bytes 8-11 (scale below, minimum above) and their high two on top of bytes 0-3
// and 4-7.
struct SixBits {
  uint8_t scale, min;
};
SixBits six_bits(const uint8_t* packed, int group) {
  if (group < 4) return {uint8_t(packed[group] & 63), uint8_t(packed[group + 4] & 63)};
  const uint8_t low = packed[group + 4];
  return {uint8_t((low & 15) | packed[group - 4] >> 6 << 4), uint8_t(low >> 4 | packed[group] >> 6 << 4)};
}
void put_six_bits(const SixBits* groups, uint8_t* packed) {
  for (int g = 0; g < 4; ++g) {
    const SixBits a = groups[g], b = groups[g + 4];
    packed[g] = uint8_t(a.scale | (b.scale >> 4) << 6);
    packed[g + 4] = uint8_t(a.min | (b.min >> 4) << 6);
    packed[g + 8] = uint8_t((b.scale & 15) | (b.min & 15) << 4);
  }
}

// Scales and minima of a block as whole multiples of two binary16 numbers.
template <int kGroups, int kGroupValues>
struct GroupScales {
  GroupScales(const float* x, int levels, int most, uint8_t* d_at, uint8_t* dmin_at) {
    AffineScale best[kGroups];
    float scale = 0.0f, min = 0.0f;
    for (int g = 0; g < kGroups; ++g) {
      best[g] = best_affine_scale<kGroupValues>(x + g * kGroupValues, levels, true);
      scale = std::max(scale, best[g].scale);
      min = std::max(min, -best[g].min);
    }
    const float d = put_half(scale / float(most), d_at), dmin = put_half(min / float(most), dmin_at);
    for (int g = 0; g < kGroups; ++g) {
      scales[g] = {level(best[g].scale, d, 0.0f, most + 1), level(-best[g].min, dmin, 0.0f, most + 1)};
      step[g] = d * float(scales[g].scale);
      low[g] = -(dmin * float(scales[g].min));
    }
  }
  SixBits scales[kGroups];
  float step[kGroups], low[kGroups];
};

// Q4_K and Q5_K: d, dmin, 12 bytes of scales, for Q5_K 32 bytes of fifth bits (bit g of byte l), 128 bytes of nibbles:
// each 32 bytes hold a group of 32 in the low nibbles and the next in the high ones.
template <int kBits>
void decode_nibbles_k(const uint8_t* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const uint8_t* nibbles = block + (kBits == 5 ? 48 : 16);
  for (int g = 0; g < 8; ++g) {
    const SixBits packed = six_bits(block + 4, g);
    const float scale = d * float(packed.scale), min = dmin * float(packed.min);
    for (int l = 0; l < 32; ++l) {
      int q = nibbles[g / 2 * 32 + l] >> (g % 2 * 4) & 15;
      if (kBits == 5) q |= (block[16 + l] >> g & 1) << 4;
      out[g * 32 + l] = scale * float(q) - min;
    }
  }
}
template <int kBits>
void encode_nibbles_k(const float* x, uint8_t* out) {
  const GroupScales<8, 32> groups(x, 1 << kBits, 63, out, out + 2);
  put_six_bits(groups.scales, out + 4);
  std::memset(out + 16, 0, kBits == 5 ? 160 : 128);
  uint8_t* nibbles = out + (kBits == 5 ? 48 : 16);
  for (int i = 0; i < 256; ++i) {
    const int g = i / 32, l = i % 32;
    const uint8_t q = level(x[i], groups.step[g], groups.low[g], 1 << kBits);
    nibbles[g / 2 * 32 + l] |= uint8_t((q & 15) << (g % 2 * 4));
    if (kBits == 5) out[16 + l] |= uint8_t((q >> 4) << g);
  }
}

// Q3_K: 16 scales of 6 bits, their low four in bytes 0-7 (0..7 below, 8..15 above), their high two in bytes 8-11.
int q3_scale(const uint8_t* packed, int g) {
  return (packed[g % 8] >> (g / 8 * 4) & 15) | (packed[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
}

}  // namespace

void decode_q4_0(const uint8_t* block, float* out) { decode_symmetric<4>(block, out); }
void decode_q4_1(const uint8_t* block, float* out) { decode_affine<4>(block, out); }
void decode_q5_0(const uint8_t* block, float* out) { decode_symmetric<5>(block, out); }
void decode_q5_1(const uint8_t* block, float* out) { decode_affine<5>(block, out); }
void decode_q4_k(const uint8_t* block, float* out) { decode_nibbles_k<4>(block, out); }
void decode_q5_k(const uint8_t* block, float* out) { decode_nibbles_k<5>(block, out); }
void encode_q4_0(const float* x, uint8_t* out) { encode_symmetric<4>(x, out); }
void encode_q4_1(const float* x, uint8_t* out) { encode_affine<4>(x, out); }
void encode_q5_0(const float* x, uint8_t* out) { encode_symmetric<5>(x, out); }
void encode_q5_1(const float* x, uint8_t* out) { encode_affine<5>(x, out); }
void encode_q4_k(const float* x, uint8_t* out) { encode_nibbles_k<4>(x, out); }
void encode_q5_k(const float* x, uint8_t* out) { encode_nibbles_k<5>(x, out); }

// Q2_K: 16 bytes of scales (low nibble) and minima (high nibble) of 16 values each, 64 bytes, d, dmin. Value
// 128 h + 32 j + l is at bits 2j of byte 32 h + l.
void decode_q2_k(const uint8_t* block, float* out) {
  const float d = half_at(block + 80), dmin = half_at(block + 82);
  for (int i = 0; i < 256; ++i) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32;
    const float scale = d * float(block[i / 16] & 15), min = dmin * float(block[i / 16] >> 4);
    out[i] = scale * float(block[16 + h * 32 + l] >> (2 * j) & 3) - min;
  }
}
void encode_q2_k(const float* x, uint8_t* out) {
  const GroupScales<16, 16> groups(x, 4, 15, out + 80, out + 82);
  std::memset(out + 16, 0, 64);
  for (int g = 0; g < 16; ++g) out[g] = uint8_t(groups.scales[g].scale | groups.scales[g].min << 4);
  for (int i = 0; i < 256; ++i) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32;
    out[16 + h * 32 + l] |= uint8_t(level(x[i], groups.step[i / 16], groups.low[i / 16], 4) << (2 * j));
  }
}

// Q3_K: 32 bytes of third bits (bit 4 h + j of byte l), 64 bytes of low pairs as in Q2_K, 12 bytes of scales, d.
void decode_q3_k(const uint8_t* block, float* out) {
  const float d = half_at(block + 108);
  for (int i = 0; i < 256; ++i) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32;
    const int q = (block[32 + h * 32 + l] >> (2 * j) & 3) | (block[l] >> (4 * h + j) & 1) << 2;
    out[i] = (d * float(q3_scale(block + 96, i / 16) - 32)) * float(q - 4);
  }
}
void encode_q3_k(const float* x, uint8_t* out) {
  float scales[16], largest = 0.0f;
  for (int g = 0; g < 16; ++g) {
    scales[g] = best_symmetric_scale<16>(x + 16 * g, 4);
    if (std::fabs(scales[g]) > std::fabs(largest)) largest = scales[g];
  }
  std::memset(out, 0, 108);
  const float d = put_half(largest / -32.0f, out + 108);
  for (int g = 0; g < 16; ++g) {
    const float ratio = d == 0.0f ? 0.0f : round_half_even(std::clamp(scales[g] / d, -32.0f, 31.0f));
    const int stored = int(ratio) + 32;
    out[96 + g % 8] |= uint8_t((stored & 15) << (g / 8 * 4));
    out[104 + g % 4] |= uint8_t((stored >> 4) << (g / 4 * 2));
    const float step = d * ratio;
    for (int i = 16 * g; i < 16 * g + 16; ++i) {
      const int h = i / 128, j = i % 128 / 32, l = i % 32;
      const float v = step == 0.0f ? 0.0f : round_half_even(std::clamp(x[i] / step, -8.0f, 8.0f));
      const int q = int(std::clamp(v, -4.0f, 3.0f)) + 4;
      out[32 + h * 32 + l] |= uint8_t((q & 3) << (2 * j));
      out[l] |= uint8_t((q >> 2) << (4 * h + j));
    }
  }
}

}  // namespace bitnet
