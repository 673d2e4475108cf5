#include "kernels/cpu/kernel_table.h"

#include <arm_neon.h>

// Loops of the packed layouts with NEON (quant/ternary_codecs.h). Long runs of stores bypass the caches by themselves
// on ARM, and its prefetchers cross pages.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"

template <int kShift>
inline uint8x16_t field(uint8x16_t x) {
  if constexpr (kShift == 0) return vandq_u8(x, vdupq_n_u8(3));
  if constexpr (kShift == 6) return vshrq_n_u8(x, 6);
  if constexpr (kShift == 2 || kShift == 4) return vandq_u8(vshrq_n_u8(x, kShift), vdupq_n_u8(3));
}

// 2-bit codes seen on the way, of which none may be 3.
struct Threes {
  uint8x16_t seen = vdupq_n_u8(0);
  inline void look(uint8x16_t x) { seen = vorrq_u8(seen, vandq_u8(x, vshrq_n_u8(x, 1))); }
  inline bool none() const { return vmaxvq_u8(vandq_u8(seen, vdupq_n_u8(0x55))) == 0; }
};
// The largest bytes seen on the way.
struct Largest {
  uint8x16_t seen = vdupq_n_u8(0);
  inline uint8x16_t look(uint8x16_t x) {
    seen = vmaxq_u8(seen, x);
    return x;
  }
  inline bool at_most(uint8_t bound) const { return vmaxvq_u8(seen) <= bound; }
};

// Planes of kPlane codes (unpack_2bit<kPlane, kHighFirst>).
template <int kPlane, bool kHighFirst>
inline void unpack_planes(const uint8_t* in, uint8_t* codes, Threes& threes) {
  BN_UNROLL for (int p = 0; p < kPlane; p += 16) {
    const uint8x16_t x = vld1q_u8(in + p);
    threes.look(x);
    vst1q_u8(codes + p, field < kHighFirst ? 6 : 0 > (x));
    vst1q_u8(codes + kPlane + p, field < kHighFirst ? 4 : 2 > (x));
    vst1q_u8(codes + 2 * kPlane + p, field < kHighFirst ? 2 : 4 > (x));
    vst1q_u8(codes + 3 * kPlane + p, field < kHighFirst ? 0 : 6 > (x));
  }
}
inline uint8x16_t join_fields(uint8x16_t low, uint8x16_t b, uint8x16_t c, uint8x16_t high) {
  return vsliq_n_u8(vsliq_n_u8(vsliq_n_u8(low, b, 2), c, 4), high, 6);
}
template <int kPlane, bool kHighFirst>
inline void pack_planes(const uint8_t* codes, uint8_t* out, Largest& largest) {
  BN_UNROLL for (int p = 0; p < kPlane; p += 16) {
    const uint8x16_t a = largest.look(vld1q_u8(codes + p)), b = largest.look(vld1q_u8(codes + kPlane + p));
    const uint8x16_t c = largest.look(vld1q_u8(codes + 2 * kPlane + p));
    const uint8x16_t d = largest.look(vld1q_u8(codes + 3 * kPlane + p));
    vst1q_u8(out + p, kHighFirst ? join_fields(d, c, b, a) : join_fields(a, b, c, d));
  }
}
template <int kPlane, bool kHighFirst>
bool decode_planes(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i) unpack_planes<kPlane, kHighFirst>(in + i * kPlane, codes + i * 4 * kPlane, threes);
  return threes.none();
}
template <int kPlane, bool kHighFirst>
bool encode_planes(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i) pack_planes<kPlane, kHighFirst>(codes + i * 4 * kPlane, out + i * kPlane, largest);
  return largest.at_most(2);
}

bool decode_tq2_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i, in += 66, codes += 256) {
    unpack_planes<32, false>(in, codes, threes);
    unpack_planes<32, false>(in + 32, codes + 128, threes);
  }
  return threes.none();
}
bool encode_tq2_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 256, out += 66) {
    pack_planes<32, false>(codes, out, largest);
    pack_planes<32, false>(codes + 128, out + 32, largest);
  }
  return largest.at_most(2);
}

// Digits of fractions in bytes (quant/ternary_blocks.h): the integer part of three times the fraction.
inline uint8x16_t digits(uint8x16_t fractions) {
  const uint8x16_t one = vcgtq_u8(fractions, vdupq_n_u8(85)), two = vcgtq_u8(fractions, vdupq_n_u8(170));
  return vsubq_u8(vdupq_n_u8(0), vaddq_u8(one, two));  // truths are -1
}
inline uint8x16_t triple(uint8x16_t x) { return vaddq_u8(vaddq_u8(x, x), x); }
inline uint8x16_t four_bytes(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return vreinterpretq_u8_u32(vdupq_n_u32(four));
}
inline void store_four(uint8_t* p, uint8x16_t x) {
  const uint32_t four = vgetq_lane_u32(vreinterpretq_u32_u8(x), 0);
  __builtin_memcpy(p, &four, 4);
}

// An encoder's bytes leave a fraction of at most 242 behind five digits; with a fifth digit of 0 at most 80 behind
// four.
bool decode_tq1_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Largest left, left_of_four;
  for (int64_t i = 0; i < n; ++i, in += 54, codes += 256) {
    uint8x16_t a = vld1q_u8(in), b = vld1q_u8(in + 16), c = vld1q_u8(in + 32), d = four_bytes(in + 48);
    BN_UNROLL for (int g = 0; g < 5; ++g) {
      vst1q_u8(codes + 32 * g, digits(a));
      vst1q_u8(codes + 32 * g + 16, digits(b));
      vst1q_u8(codes + 160 + 16 * g, digits(c));
      a = triple(a);
      b = triple(b);
      c = triple(c);
      if (g == 4) continue;
      store_four(codes + 240 + 4 * g, digits(d));
      d = triple(d);
    }
    left.look(vmaxq_u8(vmaxq_u8(a, b), c));
    left_of_four.look(d);
  }
  return left.at_most(242) && left_of_four.at_most(80);
}

// base3_byte(q) = q + (13 q + 242) / 243, by a multiplication that is exact for such small numbers.
inline uint8x8_t half_fractions(uint8x8_t q) {
  const int16x8_t sum = vreinterpretq_s16_u16(vmlal_u8(vdupq_n_u16(242), q, vdup_n_u8(13)));
  const int16x8_t quotient = vshrq_n_s16(vqdmulhq_s16(vshlq_n_s16(sum, 3), vdupq_n_s16(2158)), 7);
  return vadd_u8(q, vmovn_u16(vreinterpretq_u16_s16(quotient)));
}
inline uint8x16_t as_fractions(uint8x16_t q) {
  return vcombine_u8(half_fractions(vget_low_u8(q)), half_fractions(vget_high_u8(q)));
}
bool encode_tq1_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 256, out += 54) {
    uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
    BN_UNROLL for (int g = 0; g < 5; ++g) {
      a = vaddq_u8(triple(a), largest.look(vld1q_u8(codes + 32 * g)));
      b = vaddq_u8(triple(b), largest.look(vld1q_u8(codes + 32 * g + 16)));
      c = vaddq_u8(triple(c), largest.look(vld1q_u8(codes + 160 + 16 * g)));
      d = triple(d);
      if (g < 4) d = vaddq_u8(d, largest.look(four_bytes(codes + 240 + 4 * g)));
    }
    vst1q_u8(out, as_fractions(a));
    vst1q_u8(out + 16, as_fractions(b));
    vst1q_u8(out + 32, as_fractions(c));
    store_four(out + 48, as_fractions(d));
  }
  return largest.at_most(2);
}

// Four neighbours a byte: storing four vectors in turns puts their bytes side by side.
inline void unpack_fields(const uint8_t* in, uint8_t* codes, Threes& threes) {
  const uint8x16_t x = vld1q_u8(in);
  threes.look(x);
  const uint8x16x4_t fields = {{field<0>(x), field<2>(x), field<4>(x), field<6>(x)}};
  vst4q_u8(codes, fields);
}
inline void pack_fields(const uint8_t* codes, uint8_t* out, Largest& largest) {
  const uint8x16x4_t x = vld4q_u8(codes);
  largest.look(vmaxq_u8(vmaxq_u8(x.val[0], x.val[1]), vmaxq_u8(x.val[2], x.val[3])));
  vst1q_u8(out, join_fields(x.val[0], x.val[1], x.val[2], x.val[3]));
}
// What is left of a run goes through copies that fill a vector.
bool decode_two_bit(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) unpack_fields(in + i, codes + 4 * i, threes);
  if (i < n) {
    uint8_t last[16] = {}, unpacked[64];
    __builtin_memcpy(last, in + i, size_t(n - i));
    unpack_fields(last, unpacked, threes);
    __builtin_memcpy(codes + 4 * i, unpacked, size_t(4 * (n - i)));
  }
  return threes.none();
}
bool encode_two_bit(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) pack_fields(codes + 4 * i, out + i, largest);
  if (i < n) {
    uint8_t last[64] = {}, packed[16];
    __builtin_memcpy(last, codes + 4 * i, size_t(4 * (n - i)));
    pack_fields(last, packed, largest);
    __builtin_memcpy(out + i, packed, size_t(n - i));
  }
  return largest.at_most(2);
}

// Q2_0: blocks of a binary16 scale and kBytes bytes.
template <int64_t kBytes>
bool decode_q2_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i, in += 2 + kBytes, codes += 4 * kBytes) {
    BN_UNROLL for (int64_t at = 0; at < kBytes; at += 16) unpack_fields(in + 2 + at, codes + 4 * at, threes);
  }
  return threes.none();
}
template <int64_t kBytes>
bool encode_q2_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 4 * kBytes, out += 2 + kBytes) {
    BN_UNROLL for (int64_t at = 0; at < kBytes; at += 16) pack_fields(codes + 4 * at, out + 2 + at, largest);
  }
  return largest.at_most(2);
}

// Five neighbours a byte, the first digit the least significant: of the fraction of 256 digit j is the integer part of
// 3 frac(3^(4-j) fraction), from a copy of its byte. 80 codes are five vectors; code 16 v + i wants byte (16 v + i)
// / 5.
struct Base3Vectors {
  alignas(16) uint8_t index[5][16], factor[5][16];
};
constexpr Base3Vectors make_base3_vectors() {
  Base3Vectors made = {};
  for (int code = 0; code < 80; ++code) {
    uint32_t factor = 1;
    for (int j = code % 5; j < 4; ++j) factor *= 3;
    made.index[code / 16][code % 16] = uint8_t(code / 5);
    made.factor[code / 16][code % 16] = uint8_t(factor);
  }
  return made;
}
constexpr Base3Vectors kBase3Vectors = make_base3_vectors();

inline void unpack_digits(const uint8_t* in, uint8_t* codes, Largest& most) {
  const uint8x16_t fractions = as_fractions(most.look(vld1q_u8(in)));
  BN_UNROLL for (int v = 0; v < 5; ++v) {
    const uint8x16_t copies = vqtbl1q_u8(fractions, vld1q_u8(kBase3Vectors.index[v]));
    vst1q_u8(codes + 16 * v, digits(vmulq_u8(copies, vld1q_u8(kBase3Vectors.factor[v]))));
  }
}
bool decode_base3(const uint8_t* in, int64_t n, uint8_t* codes) {
  Largest most;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) unpack_digits(in + i, codes + 5 * i, most);
  if (i < n) {
    uint8_t last[16] = {}, unpacked[80];
    __builtin_memcpy(last, in + i, size_t(n - i));
    unpack_digits(last, unpacked, most);
    __builtin_memcpy(codes + 5 * i, unpacked, size_t(5 * (n - i)));
  }
  return most.at_most(242);
}

// Digit j of 16 fives lies at 5 five + j of 80 codes: looked up in the first 64 and in the last 64, which hold the last
// four of them.
struct FiveIndices {
  alignas(16) uint8_t first[5][16], last[5][16];
};
constexpr FiveIndices make_five_indices() {
  FiveIndices made = {};
  for (int five = 0; five < 16; ++five) {
    for (int j = 0; j < 5; ++j) {
      const int at = 5 * five + j;
      made.first[j][five] = uint8_t(at < 64 ? at : 255);
      made.last[j][five] = uint8_t(at < 64 ? 255 : at - 16);
    }
  }
  return made;
}
constexpr FiveIndices kFiveIndices = make_five_indices();

inline void pack_digits(const uint8_t* codes, uint8_t* out, Largest& largest) {
  uint8x16_t x[5];
  BN_UNROLL for (int i = 0; i < 5; ++i) x[i] = largest.look(vld1q_u8(codes + 16 * i));
  const uint8x16x4_t first = {{x[0], x[1], x[2], x[3]}}, last = {{x[1], x[2], x[3], x[4]}};
  uint8x16_t q = vdupq_n_u8(0);
  BN_UNROLL for (int j = 4; j >= 0; --j) {
    const uint8x16_t low = vqtbl4q_u8(first, vld1q_u8(kFiveIndices.first[j]));
    q = vaddq_u8(triple(q), vqtbx4q_u8(low, last, vld1q_u8(kFiveIndices.last[j])));
  }
  vst1q_u8(out, q);
}
bool encode_base3(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) pack_digits(codes + 5 * i, out + i, largest);
  if (i < n) {
    uint8_t last[80] = {}, packed[16];
    __builtin_memcpy(last, codes + 5 * i, size_t(5 * (n - i)));
    pack_digits(last, packed, largest);
    __builtin_memcpy(out + i, packed, size_t(n - i));
  }
  return largest.at_most(2);
}

#include "kernels/cpu/codecs_tail.inc.h"

#include "kernels/cpu/codecs_rest_neon.inc.h"

}  // namespace

const TernaryCodecs kNeonCodecs = {
    "neon",
    {decode_planes<32, true>, encode_planes<32, true>},
    {decode_planes<16, true>, encode_planes<16, true>},
    {decode_tq1_0, encode_tq1_0},
    {decode_tq2_0, encode_tq2_0},
    {decode_planes<16, false>, encode_planes<16, false>},
    {decode_iq1_bn, encode_iq1_bn},
    {decode_q1_0, encode_q1_0},
    {decode_q2_0<16>, encode_q2_0<16>},
    {decode_q2_0<32>, encode_q2_0<32>},
    {copy_codes, copy_codes},
    {decode_two_bit, encode_two_bit},
    {decode_base3, encode_base3},
    decode_quarters,
    encode_quarters,
    nullptr,
    add_magnitudes,
    round_to_codes,
    nullptr,
    nullptr,
};

}  // namespace bitnet
