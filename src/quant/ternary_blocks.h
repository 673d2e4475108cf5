#pragma once

#include <array>
#include <cstdint>

// One block of each packed ternary layout: how many values in how many bytes, and how its codes are read and written.
// docs/formats/ternary.md draws them. `decode` is false when a code means no ternary value; `codes` are then undefined.
namespace bitnet::ternary {

// kBytes bytes of four 2-bit codes. Value g * kBytes + p is in byte p: at bits 7-6, 5-4, 3-2, 1-0 for g = 0..3 when
// kHighFirst, at bits 1-0, 3-2, 5-4, 7-6 otherwise.
template <int kBytes, bool kHighFirst>
inline bool unpack_2bit(const uint8_t* __restrict in, uint8_t* __restrict codes) {
  uint8_t threes = 0;
  for (int p = 0; p < kBytes; ++p) {
    const uint8_t b = in[p];
    codes[p] = kHighFirst ? b >> 6 : b & 3;
    codes[kBytes + p] = kHighFirst ? b >> 4 & 3 : b >> 2 & 3;
    codes[2 * kBytes + p] = kHighFirst ? b >> 2 & 3 : b >> 4 & 3;
    codes[3 * kBytes + p] = kHighFirst ? b & 3 : b >> 6;
    threes |= uint8_t(b & b >> 1);
  }
  return (threes & 0x55) == 0;
}

template <int kBytes, bool kHighFirst>
inline void pack_2bit(const uint8_t* __restrict codes, uint8_t* __restrict out) {
  for (int p = 0; p < kBytes; ++p) {
    const uint8_t a = codes[p], b = codes[kBytes + p], c = codes[2 * kBytes + p], d = codes[3 * kBytes + p];
    out[p] = kHighFirst ? uint8_t(a << 6 | b << 4 | c << 2 | d) : uint8_t(d << 6 | c << 4 | b << 2 | a);
  }
}

// Five base-3 digits, the first the most significant, form q in 0..242, stored as ceil(q * 256 / 243); so digit i is
// the integer part of the fraction (byte / 256) * 3^(i+1), modulo 3.
constexpr uint8_t base3_byte(int q) { return uint8_t((q * 256 + 242) / 243); }

struct Base3Valid {
  std::array<uint8_t, 256> five{};  // 1 where an encoder of five digits makes this byte
  std::array<uint8_t, 256> four{};  // four digits and a fifth that is 0
};
constexpr Base3Valid make_base3_valid() {
  Base3Valid valid;
  for (int q = 0; q < 243; ++q) {
    valid.five[base3_byte(q)] = 1;
    if (q % 3 == 0) valid.four[base3_byte(q)] = 1;
  }
  return valid;
}
inline constexpr Base3Valid kBase3Valid = make_base3_valid();

// Digit g of byte p goes to codes[g * kBytes + p].
template <int kBytes, int kDigits>
inline void unpack_base3(const uint8_t* __restrict in, uint8_t* __restrict codes) {
  uint16_t fraction[kBytes];
  for (int p = 0; p < kBytes; ++p) fraction[p] = in[p];
  for (int g = 0; g < kDigits; ++g) {
    for (int p = 0; p < kBytes; ++p) {
      const uint16_t tripled = uint16_t(fraction[p] * 3);
      codes[g * kBytes + p] = uint8_t(tripled >> 8);
      fraction[p] = tripled & 255;
    }
  }
}

template <int kBytes, int kDigits>
inline void pack_base3(const uint8_t* codes, uint8_t* out) {
  for (int p = 0; p < kBytes; ++p) {
    int q = 0;
    for (int g = 0; g < 5; ++g) q = q * 3 + (g < kDigits ? codes[g * kBytes + p] : 0);
    out[p] = base3_byte(q);
  }
}

struct I2SBlock {
  static constexpr int64_t kValues = 128, kBytes = 32;
  static bool decode(const uint8_t* in, uint8_t* codes) { return unpack_2bit<32, true>(in, codes); }
  static void encode(const uint8_t* codes, uint8_t* out) { pack_2bit<32, true>(codes, out); }
};

struct I2SArm64Block {
  static constexpr int64_t kValues = 64, kBytes = 16;
  static bool decode(const uint8_t* in, uint8_t* codes) { return unpack_2bit<16, true>(in, codes); }
  static void encode(const uint8_t* codes, uint8_t* out) { pack_2bit<16, true>(codes, out); }
};

struct TQ2Block {
  static constexpr int64_t kValues = 256, kBytes = 66, kScaleOffset = 64;
  static bool decode(const uint8_t* in, uint8_t* codes) {
    const bool low = unpack_2bit<32, false>(in, codes);
    const bool high = unpack_2bit<32, false>(in + 32, codes + 128);
    return low && high;
  }
  static void encode(const uint8_t* codes, uint8_t* out) {
    pack_2bit<32, false>(codes, out);
    pack_2bit<32, false>(codes + 128, out + 32);
  }
};

struct TQ1Block {
  static constexpr int64_t kValues = 256, kBytes = 54, kScaleOffset = 52;
  static bool decode(const uint8_t* in, uint8_t* codes) {
    unpack_base3<32, 5>(in, codes);
    unpack_base3<16, 5>(in + 32, codes + 160);
    unpack_base3<4, 4>(in + 48, codes + 240);
    uint8_t valid = 1;
    for (int p = 0; p < 48; ++p) valid &= kBase3Valid.five[in[p]];
    for (int p = 48; p < 52; ++p) valid &= kBase3Valid.four[in[p]];
    return valid != 0;
  }
  static void encode(const uint8_t* codes, uint8_t* out) {
    pack_base3<32, 5>(codes, out);
    pack_base3<16, 5>(codes + 160, out + 32);
    pack_base3<4, 4>(codes + 240, out + 48);
  }
};

}  // namespace bitnet::ternary
