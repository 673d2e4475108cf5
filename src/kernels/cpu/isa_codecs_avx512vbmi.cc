#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/avx512_intrinsics.inc.h"

// Loops of the packed layouts with AVX-512 VBMI (quant/ternary_codecs.h): neighbours in a byte, for which AVX2 lacks
// the shuffles. Planes are bound by memory with either.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"

#include "kernels/cpu/codecs_tail.inc.h"

#include "kernels/cpu/codecs_planes_avx2.inc.h"

#include "kernels/cpu/codecs_bits_avx2.inc.h"

template <bool kPast>
inline void put_wide(uint8_t* p, __m512i x) {
  kPast ? _mm512_stream_si512(reinterpret_cast<__m512i*>(p), x) : _mm512_storeu_si512(p, x);
}
inline __mmask64 first_bytes(int64_t n) { return n < 64 ? (uint64_t{1} << n) - 1 : ~uint64_t{0}; }

// Two blocks at once, the last one twice where they are odd.
template <bool kPast>
bool decode_tq1_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  const __m512i one = _mm512_set1_epi8(1), low = _mm512_set1_epi8(85), high = _mm512_set1_epi8(int8_t(170));
  Tq1Left left;
  for (int64_t i = 0; i < n; i += 2) {
    const int64_t second = i + 1 < n ? 1 : 0;
    const uint8_t *const a = in + 54 * i, *const b = a + 54 * second;
    uint8_t *const a_codes = codes + 256 * i, *const b_codes = a_codes + 256 * second;
    ask(a);
    ask(b);
    __m512i x = _mm512_inserti64x4(_mm512_castsi256_si512(load(a)), load(b), 1);
    BN_UNROLL for (int g = 0; g < 5; ++g) {
      const __m512i some = _mm512_add_epi8(_mm512_min_epu8(_mm512_subs_epu8(x, low), one),
                                           _mm512_min_epu8(_mm512_subs_epu8(x, high), one));
      put<kPast>(a_codes + 32 * g, _mm512_castsi512_si256(some));
      put<kPast>(b_codes + 32 * g, _mm512_extracti64x4_epi64(some, 1));
      x = _mm512_add_epi8(_mm512_add_epi8(x, x), x);
    }
    left.of_five =
        _mm256_max_epu8(left.of_five, _mm256_max_epu8(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)));
    unpack_tq1_ends<kPast>(a, b, a_codes, b_codes, left);
  }
  return left.good();
}

// 16 bytes of four fields to 64 codes: qwords of two bytes, a field for each of their bytes.
inline __m512i spread_fields(__m128i in) {
  const __m512i shifts = _mm512_set1_epi64(0x0e0c0a0806040200);
  return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, _mm512_cvtepu16_epi64(in)), _mm512_set1_epi8(3));
}
inline __m128i join_fields(__m512i codes) {
  const __m512i pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x0401));
  return _mm512_cvtepi32_epi8(_mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00100001)));
}
struct WideLargest {
  __m512i seen = _mm512_setzero_si512();
  inline __m512i look(__m512i codes) {
    seen = _mm512_max_epu8(seen, codes);
    return codes;
  }
  inline bool at_most(int bound) const { return _mm512_cmpgt_epu8_mask(seen, _mm512_set1_epi8(int8_t(bound))) == 0; }
};

// Masks stand for what is left behind whole vectors.
template <bool kPast>
bool decode_two_bit(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    ask(in + i);
    const __m256i x = load(in + i);
    threes.look(x);
    put_wide<kPast>(codes + 4 * i, spread_fields(_mm256_castsi256_si128(x)));
    put_wide<kPast>(codes + 4 * i + 64, spread_fields(_mm256_extracti128_si256(x, 1)));
  }
  for (; i < n; i += 16) {
    const __m128i x = _mm_maskz_loadu_epi8(__mmask16(first_bytes(n - i)), in + i);
    threes.look(_mm256_inserti128_si256(_mm256_setzero_si256(), x, 0));
    _mm512_mask_storeu_epi8(codes + 4 * i, first_bytes(4 * (n - i)), spread_fields(x));
  }
  return threes.none();
}
bool encode_two_bit(const uint8_t* codes, int64_t n, uint8_t* out) {
  WideLargest largest;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    ask(codes + 4 * i);
    store_half(out + i, join_fields(largest.look(_mm512_loadu_si512(codes + 4 * i))));
  }
  if (i < n) {
    const __m512i x = largest.look(_mm512_maskz_loadu_epi8(first_bytes(4 * (n - i)), codes + 4 * i));
    _mm_mask_storeu_epi8(out + i, __mmask16(first_bytes(n - i)), join_fields(x));
  }
  return largest.at_most(2);
}

// Q2_0: blocks of a binary16 scale and kBytes bytes.
template <int64_t kBytes, bool kPast>
bool decode_q2_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i, in += 2 + kBytes, codes += 4 * kBytes) {
    ask(in);
    BN_UNROLL for (int64_t at = 0; at < kBytes; at += 16) {
      const __m128i x = load_half(in + 2 + at);
      threes.look(_mm256_inserti128_si256(_mm256_setzero_si256(), x, 0));
      put_wide<kPast>(codes + 4 * at, spread_fields(x));
    }
  }
  return threes.none();
}
template <int64_t kBytes>
bool encode_q2_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  WideLargest largest;
  for (int64_t i = 0; i < n; ++i, codes += 4 * kBytes, out += 2 + kBytes) {
    BN_UNROLL for (int64_t at = 0; at < kBytes; at += 16) {
      ask(codes + 4 * at);
      store_half(out + 2 + at, join_fields(largest.look(_mm512_loadu_si512(codes + 4 * at))));
    }
  }
  return largest.at_most(2);
}

// As in isa_codecs_avx2.cc: digit j of q is the integer part of 3 frac(3^(4-j) 270 q / 65536). 64 bytes are 320 codes,
// five vectors; code 64 v + i wants byte (64 v + i) / 5.
struct Base3Vectors {
  alignas(64) uint8_t shuffle[5][2][64];  // the even bytes, to words
  alignas(64) uint16_t factor[5][2][32];
};
constexpr Base3Vectors make_base3_vectors() {
  Base3Vectors made = {};
  for (int v = 0; v < 5; ++v) {
    for (int half = 0; half < 2; ++half) {
      for (int word = 0; word < 32; ++word) {
        // Where the packing of words puts it.
        const int code = 64 * v + word / 8 * 16 + half * 8 + word % 8;
        uint32_t factor = 270;
        for (int j = code % 5; j < 4; ++j) factor *= 3;
        made.factor[v][half][word] = uint16_t(factor);
        made.shuffle[v][half][2 * word] = uint8_t(code / 5);
      }
    }
  }
  return made;
}
constexpr Base3Vectors kBase3Vectors = make_base3_vectors();

inline __m512i unpack_digits(__m512i x, int v) {
  const __m512i three = _mm512_set1_epi16(3);
  __m512i words[2];
  BN_UNROLL for (int half = 0; half < 2; ++half) {
    const __m512i copies =
        _mm512_maskz_permutexvar_epi8(0x5555555555555555, _mm512_load_si512(kBase3Vectors.shuffle[v][half]), x);
    const __m512i factor = _mm512_load_si512(kBase3Vectors.factor[v][half]);
    words[half] = _mm512_mulhi_epu16(_mm512_mullo_epi16(copies, factor), three);
  }
  return _mm512_packus_epi16(words[0], words[1]);
}
template <bool kPast>
bool decode_base3(const uint8_t* in, int64_t n, uint8_t* codes) {
  WideLargest most;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    ask(in + i);
    const __m512i x = most.look(_mm512_loadu_si512(in + i));
    BN_UNROLL for (int v = 0; v < 5; ++v) put_wide<kPast>(codes + 5 * i + 64 * v, unpack_digits(x, v));
  }
  if (i < n) {
    const __m512i x = most.look(_mm512_maskz_loadu_epi8(first_bytes(n - i), in + i));
    BN_UNROLL for (int v = 0; v < 5; ++v) {
      const int64_t left = 5 * (n - i) - 64 * v;
      if (left > 0) _mm512_mask_storeu_epi8(codes + 5 * i + 64 * v, first_bytes(left), unpack_digits(x, v));
    }
  }
  return most.at_most(242);
}

// 80 codes are 16 fives: the first 12 lie in the first 64 codes, the last four in the last 64.
struct FiveIndices {
  alignas(64) uint8_t fours[2][64], fifths[2][64];  // [from the first, from the last]
};
constexpr FiveIndices make_five_indices() {
  FiveIndices made = {};
  for (int five = 0; five < 16; ++five) {
    const int last = five < 12 ? 0 : 1;
    for (int j = 0; j < 4; ++j) made.fours[last][4 * five + j] = uint8_t(5 * five + j - 16 * last);
    made.fifths[last][4 * five] = uint8_t(5 * five + 4 - 16 * last);
  }
  return made;
}
constexpr FiveIndices kFiveIndices = make_five_indices();
constexpr uint64_t kLastFives = 0xffff000000000000, kFirstBytes = 0x1111111111111111;

inline __m128i join_digits(__m512i first, __m512i last) {
  const auto index = [](const uint8_t* p) { return _mm512_load_si512(p); };
  const __m512i fours = _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(index(kFiveIndices.fours[0]), first),
                                                     kLastFives, index(kFiveIndices.fours[1]), last);
  const __m512i fifths =
      _mm512_mask_permutexvar_epi8(_mm512_maskz_permutexvar_epi8(kFirstBytes, index(kFiveIndices.fifths[0]), first),
                                   kLastFives & kFirstBytes, index(kFiveIndices.fifths[1]), last);
  const __m512i words = _mm512_add_epi16(_mm512_maddubs_epi16(fours, _mm512_set1_epi32(0x1b090301)),
                                         _mm512_maddubs_epi16(fifths, _mm512_set1_epi8(81)));
  return _mm512_cvtepi32_epi8(_mm512_madd_epi16(words, _mm512_set1_epi16(1)));
}
bool encode_base3(const uint8_t* codes, int64_t n, uint8_t* out) {
  WideLargest largest;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16, codes += 80) {
    ask(codes);
    ask(codes + 16);
    store_half(out + i,
               join_digits(largest.look(_mm512_loadu_si512(codes)), largest.look(_mm512_loadu_si512(codes + 16))));
  }
  if (i < n) {
    const int64_t left = 5 * (n - i);
    const __m512i first = largest.look(_mm512_maskz_loadu_epi8(first_bytes(left), codes));
    const __mmask64 behind = left > 16 ? first_bytes(left - 16) : 0;
    const __m512i last = largest.look(_mm512_maskz_loadu_epi8(behind, codes + 16));
    _mm_mask_storeu_epi8(out + i, __mmask16(first_bytes(n - i)), join_digits(first, last));
  }
  return largest.at_most(2);
}

void store_lines(const uint8_t* from, int64_t n_lines, uint8_t* to) {
  for (int64_t i = 0; i < n_lines; ++i, from += kLineBytes, to += kLineBytes) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_load_si512(from));
  }
}

}  // namespace

const TernaryCodecs kAvx512VbmiCodecs = {
    "avx512vbmi",
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
