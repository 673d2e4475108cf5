// Included inside the anonymous namespace of an isa_NAME.cc with 256-bit integers before tile_ops.inc.h. Its
//   add_products(sums, u, s)  adds four products of u in 0..127 with int8 s to each of eight sums.
struct Codes {
  __m256i lo, hi;
};
struct QuadSums {
  __m256i lo, hi;
};
constexpr int kTileQueries = 2, kKeyBias = 0;
static inline QuadSums no_sums() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline F32x16 to_floats(QuadSums sums) { return {_mm256_cvtepi32_ps(sums.lo), _mm256_cvtepi32_ps(sums.hi)}; }
static inline Codes load_codes64(const uint8_t* p) {
  const auto* const v = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}
static inline Codes low_halves(Codes c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(c.lo, mask), _mm256_and_si256(c.hi, mask)};
}
static inline Codes high_halves(Codes c) {
  return low_halves({_mm256_srli_epi16(c.lo, 4), _mm256_srli_epi16(c.hi, 4)});
}
template <int kBits>
static inline void add_key(QuadSums* sums, Codes codes, int32_t four) {
  const __m256i x = _mm256_set1_epi32(four);
  if constexpr (kBits == 8) {  // the sign goes to the other side
    sums->lo = add_products(sums->lo, _mm256_abs_epi8(codes.lo), _mm256_sign_epi8(x, codes.lo));
    sums->hi = add_products(sums->hi, _mm256_abs_epi8(codes.hi), _mm256_sign_epi8(x, codes.hi));
  } else {
    sums->lo = add_products(sums->lo, codes.lo, x);
    sums->hi = add_products(sums->hi, codes.hi, x);
  }
}
static inline void add_value(QuadSums* sums, Codes codes, int32_t four) {
  const __m256i weights = _mm256_set1_epi32(four);
  sums->lo = add_products(sums->lo, weights, codes.lo);
  sums->hi = add_products(sums->hi, weights, codes.hi);
}
