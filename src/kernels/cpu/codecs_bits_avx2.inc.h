// Q1_0 and IQ1_BN: shared by isa_codecs_avx2.cc and isa_codecs_avx512vbmi.cc, included inside their anonymous
// namespaces behind codecs_planes_avx2.inc.h.

// A bit a value: 32 of them, in copies of their bytes.
inline __m256i spread_bits(const uint8_t* in) {
  const __m256i copies = _mm256_shuffle_epi8(_mm256_set1_epi32(load_dword(in)),
                                             _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                                              2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
  const __m256i bits = _mm256_set1_epi64x(int64_t(0x8040201008040201u));
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(copies, bits), bits), bytes(2));
}
template <bool kPast>
bool decode_q1_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  for (int64_t i = 0; i < n; ++i, in += 18, codes += 128) {
    ask(in);
    BN_UNROLL for (int k = 0; k < 4; ++k) put<kPast>(codes + 32 * k, spread_bits(in + 2 + 4 * k));
  }
  return true;
}
bool encode_q1_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 128, out += 18) {
    ask(codes);
    ask(codes + 64);
    BN_UNROLL for (int k = 0; k < 4; ++k) {
      const __m256i x = largest.look(load(codes + 32 * k));
      store_dword(out + 2 + 4 * k, _mm256_movemask_epi8(_mm256_slli_epi16(x, 6)));
    }
  }
  return largest.good();
}

// IQ1_BN: three bytes of five digits and one digit of the 13th byte for 16 values. Bytes are fractions of 256, so digit
// j is the integer part of 3 frac(3^(4-j) byte / 256), in words.
struct Iq1BnVectors {
  alignas(32) uint8_t shuffle[2][2][32];  // [values 0 to 31, 32 to 63][half]
  alignas(32) uint16_t factor[2][2][16];
};
constexpr Iq1BnVectors make_iq1_bn_vectors() {
  Iq1BnVectors made = {};
  for (int v = 0; v < 2; ++v) {
    for (int half = 0; half < 2; ++half) {
      for (int word = 0; word < 16; ++word) {
        const int group = 2 * v + word / 8, in_group = half * 8 + word % 8;
        const int byte = in_group == 15 ? 12 : 3 * group + in_group / 5, digit = in_group == 15 ? group : in_group % 5;
        uint32_t factor = 256;
        for (int j = digit; j < 4; ++j) factor *= 3;
        made.factor[v][half][word] = uint16_t(factor);
        made.shuffle[v][half][2 * word] = uint8_t(byte);
        made.shuffle[v][half][2 * word + 1] = 0x80;
      }
    }
  }
  return made;
}
constexpr Iq1BnVectors kIq1BnVectors = make_iq1_bn_vectors();

// Behind five digits an encoder's bytes leave at most 242, behind four at most 80 where the fifth is 0; here the fifth
// is the most significant, so that the byte itself is at most 85.
template <bool kPast>
bool decode_iq1_bn(const uint8_t* in, int64_t n, uint8_t* codes) {
  const __m256i three = _mm256_set1_epi16(3);
  const __m128i used = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0);
  const __m128i bound = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 85, -1, -1, -1);
  __m128i most = _mm_setzero_si128(), left = most;
  for (int64_t i = 0; i < n; ++i, in += 13, codes += 64) {
    ask(in);
    uint8_t block[16] = {};
    if (i + 1 < n) {
      __builtin_memcpy(block, in, 16);
    } else {
      __builtin_memcpy(block, in, 13);
    }
    const __m128i raw = _mm_and_si128(load_half(block), used);
    most = _mm_max_epu8(most, raw);
    __m128i rest = raw;
    BN_UNROLL for (int g = 0; g < 5; ++g) rest = _mm_add_epi8(_mm_add_epi8(rest, rest), rest);
    left = _mm_max_epu8(left, rest);
    const __m256i x = _mm256_broadcastsi128_si256(raw);
    BN_UNROLL for (int v = 0; v < 2; ++v) {
      __m256i words[2];
      BN_UNROLL for (int half = 0; half < 2; ++half) {
        const __m256i copies = _mm256_shuffle_epi8(x, load(kIq1BnVectors.shuffle[v][half]));
        const __m256i factor = _mm256_load_si256(reinterpret_cast<const __m256i*>(kIq1BnVectors.factor[v][half]));
        words[half] = _mm256_mulhi_epu16(_mm256_mullo_epi16(copies, factor), three);
      }
      put<kPast>(codes + 32 * v, _mm256_packus_epi16(words[0], words[1]));
    }
  }
  const __m128i bad = _mm_or_si128(_mm_subs_epu8(most, bound), _mm_subs_epu8(left, _mm_set1_epi8(int8_t(242))));
  return _mm_testz_si128(bad, bad) != 0;
}

// A block in scalar steps: the layout mixes neighbours of four places.
bool encode_iq1_bn(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  const auto byte = [](int q) { return uint8_t((q * 256 + 242) / 243); };
  for (int64_t i = 0; i < n; ++i, codes += 64, out += 13) {
    ask(codes);
    largest.look(load(codes));
    largest.look(load(codes + 32));
    for (int g = 0; g < 4; ++g) {
      for (int b = 0; b < 3; ++b) {
        const uint8_t* c = codes + 16 * g + 5 * b;
        out[3 * g + b] = byte(c[0] + 3 * c[1] + 9 * c[2] + 27 * c[3] + 81 * c[4]);
      }
    }
    out[12] = byte(codes[15] + 3 * codes[31] + 9 * codes[47] + 27 * codes[63]);
  }
  return largest.good();
}
