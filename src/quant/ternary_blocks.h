#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

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

// Four neighbours a byte, the first at bits 1-0. 32-bit lanes hold one byte's four codes, which compilers turn into
// vector code; a fixed length lets them.
inline bool unpack_neighbours(const uint8_t* __restrict in, int64_t n_bytes, uint8_t* __restrict codes) {
  constexpr int64_t kChunk = 64;
  uint8_t threes = 0;
  int64_t b = 0;
  for (; b + kChunk <= n_bytes; b += kChunk) {
    uint32_t spread[kChunk];
    for (int64_t k = 0; k < kChunk; ++k) {
      const uint32_t x = in[b + k];
      spread[k] = (x | x << 6 | x << 12 | x << 18) & 0x03030303u;
      threes |= uint8_t(x & x >> 1);
    }
    std::memcpy(codes + 4 * b, spread, sizeof spread);
  }
  for (; b < n_bytes; ++b) {
    for (int j = 0; j < 4; ++j) codes[4 * b + j] = in[b] >> (2 * j) & 3;
    threes |= uint8_t(in[b] & in[b] >> 1);
  }
  return (threes & 0x55) == 0;
}

inline void pack_neighbours(const uint8_t* __restrict codes, int64_t n_bytes, uint8_t* __restrict out) {
  constexpr int64_t kChunk = 64;
  int64_t b = 0;
  for (; b + kChunk <= n_bytes; b += kChunk) {
    uint32_t four[kChunk];
    std::memcpy(four, codes + 4 * b, sizeof four);
    for (int64_t k = 0; k < kChunk; ++k) out[b + k] = uint8_t(four[k] | four[k] >> 6 | four[k] >> 12 | four[k] >> 18);
  }
  for (; b < n_bytes; ++b) {
    const uint8_t* c = codes + 4 * b;
    out[b] = uint8_t(c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6);
  }
}

// Five base-3 digits a byte, the first the least significant: at most 242.
struct Base3Digits {
  std::array<uint64_t, 256> five{};  // a byte each, in the low 40 bits
};
constexpr Base3Digits make_base3_digits() {
  Base3Digits digits;
  for (int q = 0; q < 256; ++q) {
    for (int i = 0, rest = q; i < 5; ++i, rest /= 3) digits.five[size_t(q)] |= uint64_t(rest % 3) << (8 * i);
  }
  return digits;
}
inline constexpr Base3Digits kBase3Digits = make_base3_digits();

// Whole bytes: 5 * n_bytes codes. Writes up to 3 bytes beyond a byte's digits, which the next one's overwrite.
inline bool unpack_base3_neighbours(const uint8_t* __restrict in, int64_t n_bytes, uint8_t* __restrict codes) {
  uint8_t largest = 0;
  int64_t b = 0;
  for (; b + 1 < n_bytes; ++b) {
    largest = in[b] > largest ? in[b] : largest;
    std::memcpy(codes + 5 * b, &kBase3Digits.five[in[b]], 8);
  }
  for (; b < n_bytes; ++b) {
    largest = in[b] > largest ? in[b] : largest;
    std::memcpy(codes + 5 * b, &kBase3Digits.five[in[b]], 5);
  }
  return largest <= 242;
}

inline void pack_base3_neighbours(const uint8_t* __restrict codes, int64_t n_bytes, uint8_t* __restrict out) {
  // Byte 4 of the product is the sum of c_i * 3^i; the lower ones stay below 243, so nothing is carried into it.
  constexpr uint64_t kPowers = 81u | 27u << 8 | 9u << 16 | 3u << 24 | uint64_t{1} << 32;
  int64_t b = 0;
  for (; b + 1 < n_bytes; ++b) {
    uint64_t five;
    std::memcpy(&five, codes + 5 * b, 8);
    out[b] = uint8_t((five & 0xffffffffffu) * kPowers >> 32);
  }
  for (; b < n_bytes; ++b) {
    const uint8_t* c = codes + 5 * b;
    out[b] = uint8_t(c[0] + 3 * c[1] + 9 * c[2] + 27 * c[3] + 81 * c[4]);
  }
}

// A byte as a block.
struct CodeByte {
  static constexpr int64_t kValues = 1, kBytes = 1;
  static bool decode(const uint8_t* in, uint8_t* codes) { return (*codes = *in) <= 2; }
  static void encode(const uint8_t* codes, uint8_t* out) { *out = *codes; }
};
struct TwoBitByte {
  static constexpr int64_t kValues = 4, kBytes = 1;
  static bool decode(const uint8_t* in, uint8_t* codes) { return unpack_neighbours(in, 1, codes); }
  static void encode(const uint8_t* codes, uint8_t* out) { pack_neighbours(codes, 1, out); }
};
struct Base3Byte {
  static constexpr int64_t kValues = 5, kBytes = 1;
  static bool decode(const uint8_t* in, uint8_t* codes) { return unpack_base3_neighbours(in, 1, codes); }
  static void encode(const uint8_t* codes, uint8_t* out) { pack_base3_neighbours(codes, 1, out); }
};

// ggml's Q1_0: a bit a value, the first in bit 0; 1 is +d and 0 is -d.
struct Q1Block {
  static constexpr int64_t kValues = 128, kBytes = 18, kScaleOffset = 0;
  static bool decode(const uint8_t* in, uint8_t* codes) {
    for (int64_t i = 0; i < kValues; ++i) codes[i] = uint8_t((in[2 + i / 8] >> (i % 8) & 1) * 2);
    return true;
  }
  static void encode(const uint8_t* codes, uint8_t* out) {
    for (int64_t p = 0; p < 16; ++p) {
      uint8_t bits = 0;
      for (int i = 0; i < 8; ++i) bits |= uint8_t((codes[8 * p + i] >> 1) << i);
      out[2 + p] = bits;
    }
  }
};

// ggml's Q2_0 (64 values) and PrismML's older one (128).
template <int64_t kN>
struct Q2Block {
  static constexpr int64_t kValues = kN, kBytes = 2 + kN / 4, kScaleOffset = 0;
  static bool decode(const uint8_t* in, uint8_t* codes) { return unpack_neighbours(in + 2, kN / 4, codes); }
  static void encode(const uint8_t* codes, uint8_t* out) { pack_neighbours(codes, kN / 4, out + 2); }
};

// ik_llama.cpp's IQ2_BN.
struct Iq2BnBlock {
  static constexpr int64_t kValues = 64, kBytes = 16;
  static bool decode(const uint8_t* in, uint8_t* codes) { return unpack_2bit<16, false>(in, codes); }
  static void encode(const uint8_t* codes, uint8_t* out) { pack_2bit<16, false>(codes, out); }
};

// Digits as IQ1_BN keeps them: the number q with the first digit the least significant, as ceil(q * 256 / 243).
struct Base3LeastFirst {
  std::array<uint64_t, 256> digits{};       // a byte each
  std::array<uint8_t, 256> five{}, four{};  // 1 where an encoder makes this byte
};
constexpr Base3LeastFirst make_base3_least_first() {
  Base3LeastFirst table;
  for (int q = 0; q < 243; ++q) {
    const size_t byte = base3_byte(q);
    table.digits[byte] = kBase3Digits.five[size_t(q)];
    table.five[byte] = 1;
    table.four[byte] = q < 81;
  }
  return table;
}
inline constexpr Base3LeastFirst kBase3LeastFirst = make_base3_least_first();

// ik_llama.cpp's IQ1_BN: of each 16 values three bytes hold 15, five digits a byte, the least significant first, as
// ceil(q * 256 / 243); the 13th byte holds the last value of each of the four sixteens and a fifth digit that is 0.
struct Iq1BnBlock {
  static constexpr int64_t kValues = 64, kBytes = 13;
  static bool decode(const uint8_t* in, uint8_t* codes) {
    uint8_t valid = kBase3LeastFirst.four[in[12]];
    uint64_t last = kBase3LeastFirst.digits[in[12]];
    for (int g = 0; g < 4; ++g, last >>= 8) {
      for (int b = 0; b < 3; ++b) {
        const uint8_t byte = in[3 * g + b];
        valid &= kBase3LeastFirst.five[byte];
        std::memcpy(codes + 16 * g + 5 * b, &kBase3LeastFirst.digits[byte], 5);
      }
      codes[16 * g + 15] = uint8_t(last & 3);
    }
    return valid != 0;
  }
  static void encode(const uint8_t* codes, uint8_t* out) {
    const auto number = [](int a, int b, int c, int d, int e) { return a + 3 * b + 9 * c + 27 * d + 81 * e; };
    for (int g = 0; g < 4; ++g) {
      for (int b = 0; b < 3; ++b) {
        const uint8_t* c = codes + 16 * g + 5 * b;
        out[3 * g + b] = base3_byte(number(c[0], c[1], c[2], c[3], c[4]));
      }
    }
    out[12] = base3_byte(number(codes[15], codes[31], codes[47], codes[63], 0));
  }
};

}  // namespace bitnet::ternary
