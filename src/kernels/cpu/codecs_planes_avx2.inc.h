// Layouts of planes, and what needs no shuffling: shared by isa_codecs_avx2.cc and isa_codecs_avx512vbmi.cc, included
// inside their anonymous namespaces.
//
// Every loop asks for its input kAhead bytes in front: the processor's own prefetcher stops at the end of a page.
constexpr int64_t kAhead = 4096;
inline void ask(const void* p) { _mm_prefetch(static_cast<const char*>(p) + kAhead, _MM_HINT_T0); }

inline __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m128i load_half(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline void store(uint8_t* p, __m256i x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
// kPast: around the caches, into aligned memory; the stores of a line follow each other closely, so that it leaves
// whole.
template <bool kPast>
inline void put(uint8_t* p, __m256i x) {
  kPast ? _mm256_stream_si256(reinterpret_cast<__m256i*>(p), x) : store(p, x);
}
template <bool kPast>
inline void put_half(uint8_t* p, __m128i x) {
  kPast ? _mm_stream_si128(reinterpret_cast<__m128i*>(p), x) : _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x);
}
inline void store_half(uint8_t* p, __m128i x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x); }
inline int32_t load_dword(const uint8_t* p) {
  int32_t dword;
  __builtin_memcpy(&dword, p, 4);
  return dword;
}
inline void store_dword(uint8_t* p, int32_t dword) { __builtin_memcpy(p, &dword, 4); }
inline __m256i load_halves(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(low)), load_half(high), 1);
}
inline __m256i bytes(int value) { return _mm256_set1_epi8(int8_t(value)); }
inline bool at_most(__m256i x, __m256i bound) {
  return _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(x, bound), bound)) == -1;
}
template <int kShift>
inline __m256i field(__m256i x) {
  return _mm256_and_si256(_mm256_srli_epi16(x, kShift), bytes(3));
}

// 2-bit codes seen on the way, of which none may be 3.
struct Threes {
  __m256i seen = _mm256_setzero_si256();
  inline void look(__m256i x) { seen = _mm256_or_si256(seen, _mm256_and_si256(x, _mm256_srli_epi16(x, 1))); }
  inline bool none() const { return _mm256_testz_si256(seen, bytes(0x55)) != 0; }
};
// Codes seen on the way, of which none may be above 2.
struct Largest {
  __m256i seen = _mm256_setzero_si256();
  inline __m256i look(__m256i codes) {
    seen = _mm256_max_epu8(seen, codes);
    return codes;
  }
  inline bool good() const { return at_most(seen, bytes(2)); }
};

// Planes of 32 codes (unpack_2bit<32, kHighFirst>).
template <bool kHighFirst, bool kPast>
inline void unpack_planes(const uint8_t* in, uint8_t* codes, Threes& threes) {
  const __m256i x = load(in);
  threes.look(x);
  put<kPast>(codes, field < kHighFirst ? 6 : 0 > (x));
  put<kPast>(codes + 32, field < kHighFirst ? 4 : 2 > (x));
  put<kPast>(codes + 64, field < kHighFirst ? 2 : 4 > (x));
  put<kPast>(codes + 96, field < kHighFirst ? 0 : 6 > (x));
}
template <bool kHighFirst>
inline __m256i join_planes(__m256i a, __m256i b, __m256i c, __m256i d) {
  if (!kHighFirst) return join_planes<true>(d, c, b, a);
  // Codes stay below 4, so that nothing crosses a byte.
  return _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(a, 6), _mm256_slli_epi16(b, 4)),
                         _mm256_or_si256(_mm256_slli_epi16(c, 2), d));
}
template <bool kHighFirst>
inline void pack_planes(const uint8_t* codes, uint8_t* out, Largest& largest) {
  const __m256i a = largest.look(load(codes)), b = largest.look(load(codes + 32));
  const __m256i c = largest.look(load(codes + 64)), d = largest.look(load(codes + 96));
  store(out, join_planes<kHighFirst>(a, b, c, d));
}

template <bool kPast>
bool decode_i2_s(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i, in += 32, codes += 128) {
    ask(in);
    unpack_planes<true, kPast>(in, codes, threes);
  }
  return threes.none();
}
bool encode_i2_s(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 128, out += 32) {
    ask(codes);
    ask(codes + 64);
    pack_planes<true>(codes, out, largest);
  }
  return largest.good();
}

template <bool kPast>
bool decode_tq2_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; ++i, in += 66, codes += 256) {
    ask(in);
    unpack_planes<false, kPast>(in, codes, threes);
    unpack_planes<false, kPast>(in + 32, codes + 128, threes);
  }
  return threes.none();
}
bool encode_tq2_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 256, out += 66) {
    BN_UNROLL for (int line = 0; line < 4; ++line) ask(codes + 64 * line);
    pack_planes<false>(codes, out, largest);
    pack_planes<false>(codes + 128, out + 32, largest);
  }
  return largest.good();
}

// Planes of 16 codes (unpack_2bit<16, kHighFirst>), two blocks at once; the last one twice where they are odd.
template <bool kHighFirst, bool kPast>
bool decode_short_planes(const uint8_t* in, int64_t n, uint8_t* codes) {
  Threes threes;
  for (int64_t i = 0; i < n; i += 2) {
    const int64_t second = i + 1 < n ? i + 1 : i;
    ask(in + 16 * i);
    const __m256i x = load_halves(in + 16 * i, in + 16 * second);
    threes.look(x);
    const __m256i a = field < kHighFirst ? 6 : 0 > (x), b = field < kHighFirst ? 4 : 2 > (x);
    const __m256i c = field < kHighFirst ? 2 : 4 > (x), d = field < kHighFirst ? 0 : 6 > (x);
    put<kPast>(codes + 64 * i, _mm256_permute2x128_si256(a, b, 0x20));
    put<kPast>(codes + 64 * i + 32, _mm256_permute2x128_si256(c, d, 0x20));
    put<kPast>(codes + 64 * second, _mm256_permute2x128_si256(a, b, 0x31));
    put<kPast>(codes + 64 * second + 32, _mm256_permute2x128_si256(c, d, 0x31));
  }
  return threes.none();
}
template <bool kHighFirst>
bool encode_short_planes(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; i += 2) {
    const int64_t second = i + 1 < n ? i + 1 : i;
    ask(codes + 64 * i);
    ask(codes + 64 * i + 64);
    const auto plane = [&](int64_t at) {
      return largest.look(load_halves(codes + 64 * i + at, codes + 64 * second + at));
    };
    const __m256i x = join_planes<kHighFirst>(plane(0), plane(16), plane(32), plane(48));
    store_half(out + 16 * i, _mm256_castsi256_si128(x));
    store_half(out + 16 * second, _mm256_extracti128_si256(x, 1));
  }
  return largest.good();
}

// Digits of fractions in bytes (quant/ternary_blocks.h): the integer part of three times the fraction.
inline __m256i digits(__m256i fractions) {
  const __m256i one = bytes(1);
  return _mm256_add_epi8(_mm256_min_epu8(_mm256_subs_epu8(fractions, bytes(85)), one),
                         _mm256_min_epu8(_mm256_subs_epu8(fractions, bytes(170)), one));
}
inline __m256i triple(__m256i x) { return _mm256_add_epi8(_mm256_add_epi8(x, x), x); }

// The three parts of TQ1_0's blocks: 32 bytes of five digits, 16 bytes of five, 4 bytes of four. An encoder's bytes
// leave a fraction of at most 242 behind five digits; with a fifth digit of 0 at most 80 behind four.
struct Tq1Left {
  __m256i of_five = _mm256_setzero_si256(), of_four = _mm256_setzero_si256();
  inline bool good() const { return at_most(of_five, bytes(242)) && at_most(of_four, bytes(80)); }
};
// Bytes 32 to 51 of two blocks.
template <bool kPast>
inline void unpack_tq1_ends(const uint8_t* first, const uint8_t* second, uint8_t* first_codes, uint8_t* second_codes,
                            Tq1Left& left) {
  __m256i fractions = load_halves(first + 32, second + 32);
  BN_UNROLL for (int g = 0; g < 5; ++g) {
    const __m256i some = digits(fractions);
    put_half<kPast>(first_codes + 160 + 16 * g, _mm256_castsi256_si128(some));
    put_half<kPast>(second_codes + 160 + 16 * g, _mm256_extracti128_si256(some, 1));
    fractions = triple(fractions);
  }
  left.of_five = _mm256_max_epu8(left.of_five, fractions);
  // Four bytes in four copies, each tripled once more than the last: all their digits at once.
  const __m256i once = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi32(load_dword(first + 48))),
                                               _mm_set1_epi32(load_dword(second + 48)), 1);
  const __m256i twice = triple(once), thrice = triple(twice), last = triple(thrice);
  const __m256i four =
      digits(_mm256_blend_epi32(_mm256_blend_epi32(once, twice, 0x22), _mm256_blend_epi32(thrice, last, 0x88), 0xcc));
  put_half<kPast>(first_codes + 240, _mm256_castsi256_si128(four));
  put_half<kPast>(second_codes + 240, _mm256_extracti128_si256(four, 1));
  left.of_four = _mm256_max_epu8(left.of_four, triple(last));
}

// base3_byte: (256 q + 242) / 243, by a multiplication that is exact below 2^16.
inline __m256i as_fractions(__m256i q) {
  const __m256i factor = _mm256_set1_epi16(int16_t(34522)), rest = bytes(242);
  const __m256i low = _mm256_mulhi_epu16(_mm256_unpacklo_epi8(rest, q), factor);
  const __m256i high = _mm256_mulhi_epu16(_mm256_unpackhi_epi8(rest, q), factor);
  return _mm256_packus_epi16(_mm256_srli_epi16(low, 7), _mm256_srli_epi16(high, 7));
}
bool encode_tq1_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 256, out += 54) {
    BN_UNROLL for (int line = 0; line < 4; ++line) ask(codes + 64 * line);
    __m256i q = _mm256_setzero_si256(), q_short = q;
    BN_UNROLL for (int g = 0; g < 5; ++g) {
      const int32_t last = g < 4 ? load_dword(codes + 240 + 4 * g) : 0;
      q = _mm256_add_epi8(triple(q), largest.look(load(codes + 32 * g)));
      const __m256i some =
          _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(codes + 160 + 16 * g)), _mm_cvtsi32_si128(last), 1);
      q_short = _mm256_add_epi8(triple(q_short), largest.look(some));
    }
    const __m256i fractions_short = as_fractions(q_short);
    store(out, as_fractions(q));
    store_half(out + 32, _mm256_castsi256_si128(fractions_short));
    store_dword(out + 48, _mm_cvtsi128_si32(_mm256_extracti128_si256(fractions_short, 1)));
  }
  return largest.good();
}

template <bool kPast>
bool copy_codes(const uint8_t* in, int64_t n, uint8_t* out) {
  Largest largest;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    ask(in + i);
    put<kPast>(out + i, largest.look(load(in + i)));
    put<kPast>(out + i + 32, largest.look(load(in + i + 32)));
  }
  uint8_t most = 0;
  for (; i < n; ++i) {
    most = in[i] > most ? in[i] : most;
    out[i] = in[i];
  }
  return most <= 2 && largest.good();
}

template <bool kPast>
bool decode_quarters(const uint8_t* in, int64_t n, uint8_t* const codes[4]) {
  Threes threes;
  uint8_t *const a = codes[0], *const b = codes[1], *const c = codes[2], *const d = codes[3];
  // Of a byte only the quarters that are wanted may be looked at.
  const __m256i wanted =
      bytes((a != nullptr ? 3 : 0) | (b != nullptr ? 12 : 0) | (c != nullptr ? 48 : 0) | (d != nullptr ? 192 : 0));
  // Whole lines of a quarter at once.
  constexpr int64_t kStep = kPast ? 64 : 32;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    ask(in + i);
    const __m256i x = load(in + i), y = load(in + i + kStep - 32);
    threes.look(_mm256_and_si256(x, wanted));
    threes.look(_mm256_and_si256(y, wanted));
    const auto quarter = [&](uint8_t* to, __m256i low, __m256i high) {
      if (to == nullptr) return;
      put<kPast>(to + i, low);
      if (kPast) put<kPast>(to + i + 32, high);
    };
    quarter(a, field<0>(x), field<0>(y));
    quarter(b, field<2>(x), field<2>(y));
    quarter(c, field<4>(x), field<4>(y));
    quarter(d, field<6>(x), field<6>(y));
  }
  return decode_left_quarters(in, i, n, codes) && threes.none();
}
bool encode_quarters(const uint8_t* const codes[4], int64_t n, uint8_t* out) {
  Largest largest;
  const auto quarter = [&](int k, int64_t i) {
    if (codes[k] == nullptr) return _mm256_setzero_si256();
    ask(codes[k] + i);
    return largest.look(load(codes[k] + i));
  };
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    store(out + i, join_planes<false>(quarter(0, i), quarter(1, i), quarter(2, i), quarter(3, i)));
  }
  return encode_left_quarters(codes, i, n, out) && largest.good();
}

// Eight lanes, each in order.
void add_magnitudes(const float* x, int64_t n, double lanes[kMagnitudeLanes]) {
  __m256d low = _mm256_loadu_pd(lanes), high = _mm256_loadu_pd(lanes + 4);
  const __m128 sign = _mm_set1_ps(-0.0f);
  for (int64_t i = 0; i < n; i += kMagnitudeLanes) {
    ask(x + i);
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm_andnot_ps(sign, _mm_loadu_ps(x + i))));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm_andnot_ps(sign, _mm_loadu_ps(x + i + 4))));
  }
  _mm256_storeu_pd(lanes, low);
  _mm256_storeu_pd(lanes + 4, high);
}

// 1 + (x * scale < -0.5) - (x * scale > 0.5) with truths of -1, negated.
inline __m256i round_eight(const float* x, __m256 scale) {
  const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), scale);
  const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_set1_ps(0.5f), _CMP_GT_OQ));
  const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_set1_ps(-0.5f), _CMP_LT_OQ));
  return _mm256_sub_epi32(below, above);
}
void round_to_codes(const float* x, int64_t n, float scale, uint8_t* codes) {
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    ask(x + i);
    ask(x + i + 16);
    const __m256i low = _mm256_packs_epi32(round_eight(x + i, factor), round_eight(x + i + 8, factor));
    const __m256i high = _mm256_packs_epi32(round_eight(x + i + 16, factor), round_eight(x + i + 24, factor));
    const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    store(codes + i, _mm256_add_epi8(all, bytes(1)));
  }
  round_left(x, i, n, scale, codes);
}

void fence() { _mm_sfence(); }
