#include "kernels/cpu/kernel_table.h"

#include <immintrin.h>

// Loops of the packed layouts with AVX2 (quant/ternary_codecs.h).
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"

#include "kernels/cpu/codecs_tail.inc.h"

#include "kernels/cpu/codecs_planes_avx2.inc.h"

// Two blocks at once, the last one twice where they are odd.
template <bool kPast>
bool decode_tq1_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Tq1Left left;
  for (int64_t i = 0; i < n; i += 2) {
    const int64_t second = i + 1 < n ? 1 : 0;
    const uint8_t *const a = in + 54 * i, *const b = a + 54 * second;
    uint8_t *const a_codes = codes + 256 * i, *const b_codes = a_codes + 256 * second;
    ask(a);
    ask(b);
    __m256i x = load(a), y = load(b);
    BN_UNROLL for (int g = 0; g < 5; ++g) {
      put<kPast>(a_codes + 32 * g, digits(x));
      put<kPast>(b_codes + 32 * g, digits(y));
      x = triple(x);
      y = triple(y);
    }
    left.of_five = _mm256_max_epu8(left.of_five, _mm256_max_epu8(x, y));
    unpack_tq1_ends<kPast>(a, b, a_codes, b_codes, left);
  }
  return left.good();
}

// Four neighbours a byte: dwords of a byte each spread its fields over their bytes.
inline __m256i spread_fields(const uint8_t* in) {
  const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in)));
  const __m256i pairs = _mm256_and_si256(_mm256_or_si256(x, _mm256_slli_epi32(x, 12)), _mm256_set1_epi32(0x000f000f));
  return _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi32(pairs, 6)), bytes(3));
}
// 32 bytes to 128 codes.
template <bool kPast>
inline void unpack_fields(const uint8_t* in, uint8_t* codes, Threes& threes) {
  threes.look(load(in));
  BN_UNROLL for (int i = 0; i < 4; ++i) put<kPast>(codes + 32 * i, spread_fields(in + 8 * i));
}
inline __m256i join_fields(__m256i codes) {
  const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x0401));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
}
// Four vectors of bytes in dwords, in order.
inline __m256i narrow_dwords(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i all = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
  return _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
inline void pack_fields(const uint8_t* codes, uint8_t* out, Largest& largest) {
  const auto dwords = [&](int i) { return join_fields(largest.look(load(codes + 32 * i))); };
  store(out, narrow_dwords(dwords(0), dwords(1), dwords(2), dwords(3)));
}

// What is left of a run goes through copies that fill a vector.
template <bool kPast>
bool decode_two_bit(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    ask(in + i);
    unpack_fields<kPast>(in + i, codes + 4 * i, threes);
  }
  if (i < n) {
    uint8_t last[32] = {}, unpacked[128];
    __builtin_memcpy(last, in + i, size_t(n - i));
    unpack_fields<false>(last, unpacked, threes);
    __builtin_memcpy(codes + 4 * i, unpacked, size_t(4 * (n - i)));
  }
  return threes.none();
}
bool encode_two_bit(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    ask(codes + 4 * i);
    ask(codes + 4 * i + 64);
    pack_fields(codes + 4 * i, out + i, largest);
  }
  if (i < n) {
    uint8_t last[128] = {}, packed[32];
    __builtin_memcpy(last, codes + 4 * i, size_t(4 * (n - i)));
    pack_fields(last, packed, largest);
    __builtin_memcpy(out + i, packed, size_t(n - i));
  }
  return largest.good();
}

// Q2_0: blocks of a binary16 scale and kBytes bytes.
template <int64_t kBytes, bool kPast>
bool decode_q2_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i, in += 2 + kBytes, codes += 4 * kBytes) {
    ask(in);
    BN_UNROLL for (int64_t at = 0; at < kBytes; at += 16) {
      const __m256i x = _mm256_castsi128_si256(load_half(in + 2 + at));
      threes.look(_mm256_inserti128_si256(x, _mm_setzero_si128(), 1));
      put<kPast>(codes + 4 * at, spread_fields(in + 2 + at));
      put<kPast>(codes + 4 * at + 32, spread_fields(in + 2 + at + 8));
    }
  }
  return threes.none();
}
template <int64_t kBytes>
bool encode_q2_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 4 * kBytes, out += 2 + kBytes) {
    BN_UNROLL for (int64_t at = 0; at < kBytes; at += 16) {
      ask(codes + 4 * at);
      const __m256i low = join_fields(largest.look(load(codes + 4 * at)));
      const __m256i high = join_fields(largest.look(load(codes + 4 * at + 32)));
      store_half(out + 2 + at, _mm256_castsi256_si128(narrow_dwords(low, high, low, high)));
    }
  }
  return largest.good();
}

// Five neighbours a byte, the first digit the least significant. F = 270 q counts 1 / 65536 parts of q / 243 closely
// enough: digit j is the integer part of 3 frac(3^(4-j) F), so two multiplications of words give it from a copy of its
// byte. 160 codes are five vectors; code 32 v + i wants byte (32 v + i) / 5.
struct Base3Vectors {
  alignas(32) uint8_t shuffle[5][2][32];  // to words, from 16 bytes at first_byte(v)
  alignas(32) uint16_t factor[5][2][16];
};
constexpr int first_byte(int v) { return 32 * v / 5 < 16 ? 32 * v / 5 : 16; }
constexpr Base3Vectors make_base3_vectors() {
  Base3Vectors made = {};
  for (int v = 0; v < 5; ++v) {
    for (int half = 0; half < 2; ++half) {
      for (int word = 0; word < 16; ++word) {
        // Where the packing of words puts it.
        const int code = 32 * v + word / 8 * 16 + half * 8 + word % 8;
        uint32_t factor = 270;
        for (int j = code % 5; j < 4; ++j) factor *= 3;
        made.factor[v][half][word] = uint16_t(factor);
        made.shuffle[v][half][2 * word] = uint8_t(code / 5 - first_byte(v));
        made.shuffle[v][half][2 * word + 1] = 0x80;
      }
    }
  }
  return made;
}
constexpr Base3Vectors kBase3Vectors = make_base3_vectors();

// 32 bytes to 160 codes.
template <bool kPast>
inline void unpack_digits(const uint8_t* in, uint8_t* codes) {
  const __m256i three = _mm256_set1_epi16(3);
  BN_UNROLL for (int v = 0; v < 5; ++v) {
    const __m256i x = _mm256_broadcastsi128_si256(load_half(in + first_byte(v)));
    __m256i words[2];
    BN_UNROLL for (int half = 0; half < 2; ++half) {
      const __m256i copies = _mm256_shuffle_epi8(x, load(kBase3Vectors.shuffle[v][half]));
      const __m256i factor = _mm256_load_si256(reinterpret_cast<const __m256i*>(kBase3Vectors.factor[v][half]));
      words[half] = _mm256_mulhi_epu16(_mm256_mullo_epi16(copies, factor), three);
    }
    put<kPast>(codes + 32 * v, _mm256_packus_epi16(words[0], words[1]));
  }
}
template <bool kPast>
bool decode_base3(const uint8_t* in, int64_t n, uint8_t* codes) {
  __m256i most = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    ask(in + i);
    most = _mm256_max_epu8(most, load(in + i));
    unpack_digits<kPast>(in + i, codes + 5 * i);
  }
  if (i < n) {
    uint8_t last[32] = {}, unpacked[160];
    __builtin_memcpy(last, in + i, size_t(n - i));
    most = _mm256_max_epu8(most, load(last));
    unpack_digits<false>(last, unpacked);
    __builtin_memcpy(codes + 5 * i, unpacked, size_t(5 * (n - i)));
  }
  return at_most(most, bytes(242));
}

// 40 codes to a dword for each five: words of c0 + 3 c1 and 9 c2 + 27 c3, and of 81 c4. 20 codes are four fives, of
// which the first begins before the upper 16 codes and the others end in them.
inline __m256i join_digits(const uint8_t* codes, Largest& largest) {
  const __m256i low = largest.look(load_halves(codes, codes + 20));
  const __m256i high = largest.look(load_halves(codes + 4, codes + 24));
  const __m256i fours = _mm256_blend_epi32(
      _mm256_shuffle_epi8(
          high, _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, -1, -1, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14))),
      low, 0x11);
  const __m256i fifths = _mm256_shuffle_epi8(
      high, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, -1, -1, 5, -1, -1, -1, 10, -1, -1, -1, 15, -1, -1, -1)));
  const __m256i words = _mm256_add_epi16(_mm256_maddubs_epi16(fours, _mm256_set1_epi32(0x1b090301)),
                                         _mm256_maddubs_epi16(fifths, bytes(81)));
  return _mm256_madd_epi16(words, _mm256_set1_epi16(1));
}
inline void pack_digits(const uint8_t* codes, uint8_t* out, Largest& largest) {
  const auto dwords = [&](int i) { return join_digits(codes + 40 * i, largest); };
  store(out, narrow_dwords(dwords(0), dwords(1), dwords(2), dwords(3)));
}
bool encode_base3(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    BN_UNROLL for (int line = 0; line < 3; ++line) ask(codes + 5 * i + 64 * line);
    pack_digits(codes + 5 * i, out + i, largest);
  }
  if (i < n) {
    uint8_t last[160] = {}, packed[32];
    __builtin_memcpy(last, codes + 5 * i, size_t(5 * (n - i)));
    pack_digits(last, packed, largest);
    __builtin_memcpy(out + i, packed, size_t(n - i));
  }
  return largest.good();
}

#include "kernels/cpu/codecs_bits_avx2.inc.h"

void store_lines(const uint8_t* from, int64_t n_lines, uint8_t* to) {
  for (int64_t i = 0; i < n_lines; ++i, from += kLineBytes, to += kLineBytes) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), load(from));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + 32), load(from + 32));
  }
}

}  // namespace

const TernaryCodecs kAvx2Codecs = {
    "avx2",
    {decode_i2_s<false>, encode_i2_s, decode_i2_s<true>},
    {decode_short_planes<true, false>, encode_short_planes<true>, decode_short_planes<true, true>},
    {decode_tq1_0<false>, encode_tq1_0, decode_tq1_0<true>},
    {decode_tq2_0<false>, encode_tq2_0, decode_tq2_0<true>},
    {decode_short_planes<false, false>, encode_short_planes<false>, decode_short_planes<false, true>},
    {decode_iq1_bn<false>, encode_iq1_bn, decode_iq1_bn<true>},
    {decode_q1_0<false>, encode_q1_0, decode_q1_0<true>},
    {decode_q2_0<16, false>, encode_q2_0<16>, decode_q2_0<16, true>},
    {decode_q2_0<32, false>, encode_q2_0<32>, decode_q2_0<32, true>},
    {copy_codes<false>, copy_codes<false>, copy_codes<true>},
    {decode_two_bit<false>, encode_two_bit, decode_two_bit<true>},
    {decode_base3<false>, encode_base3, decode_base3<true>},
    decode_quarters<false>,
    encode_quarters,
    decode_quarters<true>,
    add_magnitudes,
    round_to_codes,
    store_lines,
    fence,
};

}  // namespace bitnet
