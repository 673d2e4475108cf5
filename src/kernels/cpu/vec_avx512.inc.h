// Included inside the anonymous namespace of an isa_NAME.cc: 16 floats as one AVX-512 register.
struct F32x16 {
  __m512 v;
};

// Register tiles: rows x vectors of a product, outputs x vectors of a weighted sum.
constexpr int kDotRows = 4, kDotVectors = 4;
constexpr int kSumOutputs = 4, kSumVectors = 4;

static inline F32x16 zero() { return {_mm512_setzero_ps()}; }
static inline F32x16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
static inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }

static inline F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
// a > b ? a : b and a < b ? a : b, so b where they are unordered.
static inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
// a where g > 0, else +0.
static inline F32x16 where_positive(F32x16 g, F32x16 a) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(g.v, _mm512_setzero_ps(), _CMP_GT_OQ), a.v)};
}
static inline F32x16 negate(F32x16 a) {
  return {_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(int(0x80000000u))))};
}

static inline F32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
static inline F32x16 broadcast_f16(uint16_t half) { return {_mm512_cvtph_ps(_mm256_set1_epi16(int16_t(half)))}; }
static inline F32x16 load_bf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
static inline F32x16 load_i32(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
static inline F32x16 from_i8(U8x16 bytes) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(reinterpret_cast<__m128i>(bytes)))};
}
static inline void store_f16(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
// Of integers in [-128, 127].
static inline void store_i8(int8_t* p, F32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
static inline float f16_to_f32(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }
// The bits of each lane shifted left by 23: an integer in the mantissa becomes an exponent.
static inline F32x16 shift_to_exponent(F32x16 a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}

// Lanes folded in the order of numerics.md 4: l + 8, l + 4, l + 2, l + 1.
static inline float fold(F32x16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline void fold4(F32x16 a, F32x16 b, F32x16 c, F32x16 d, float* sums) {
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee));
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c.v, d.v, 0x44), _mm512_shuffle_f32x4(c.v, d.v, 0xee));
  const __m512 four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
  const __m512 one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xb1));
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(first, one)));
}
// Sums by neighbours (numerics.md 5) of 16 vectors, level after level from 0 on, the last four of them with a = b; then
// all lanes have the sum. Two levels add within quarters of a register and two add quarters; after these four the sums
// are in order.
template <int kLevel>
static inline F32x16 add_neighbours(F32x16 a, F32x16 b) {
  if constexpr (kLevel % 4 < 2) {
    return {_mm512_add_ps(_mm512_shuffle_ps(a.v, b.v, 0x88), _mm512_shuffle_ps(a.v, b.v, 0xdd))};
  } else {
    return {_mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x88), _mm512_shuffle_f32x4(a.v, b.v, 0xdd))};
  }
}
static inline float first_lane(F32x16 a) { return _mm512_cvtss_f32(a.v); }
static inline float fold_max(F32x16 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Sums of four products (tile_ops.inc.h); VPDPBUSD wants the bytes of one side unsigned.
typedef __m512i Codes;
typedef __m512i QuadSums;
constexpr int kTileQueries = 4, kKeyBias = 128;
static inline QuadSums no_sums() { return _mm512_setzero_si512(); }
static inline F32x16 to_floats(QuadSums sums) { return {_mm512_cvtepi32_ps(sums)}; }
static inline Codes load_codes64(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline Codes low_halves(Codes c) { return _mm512_and_si512(c, _mm512_set1_epi8(15)); }
static inline Codes high_halves(Codes c) { return low_halves(_mm512_srli_epi16(c, 4)); }
template <int kBits>
static inline void add_key(QuadSums* sums, Codes codes, int32_t four) {
  if constexpr (kBits == 8) codes = _mm512_xor_si512(codes, _mm512_set1_epi8(int8_t(-128)));
  *sums = _mm512_dpbusd_epi32(*sums, codes, _mm512_set1_epi32(four));
}
static inline void add_value(QuadSums* sums, Codes codes, int32_t four) {
  *sums = _mm512_dpbusd_epi32(*sums, _mm512_set1_epi32(four), codes);
}

// Training: tiles of kTileRowsAtOnce rows x kTileVectors vectors, square roots, and int16 pairs.
constexpr int kTileRowsAtOnce = 12, kTileVectors = 2;
static inline F32x16 sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
// Of integers in [-32768, 32767].
static inline void store_i16(int16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a.v)));
}
struct I32x16 {
  __m512i v;
};
struct I16Pairs {
  __m512i v;
};
static inline I32x16 zero_i32() { return {_mm512_setzero_si512()}; }
static inline void store_i32(int32_t* p, I32x16 a) { _mm512_storeu_si512(p, a.v); }
static inline I16Pairs load_pairs(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
static inline I16Pairs broadcast_pair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return {_mm512_set1_epi32(pair)};
}
static inline I32x16 add_products(I32x16 sum, I16Pairs a, I16Pairs b) { return {_mm512_dpwssd_epi32(sum.v, a.v, b.v)}; }
