// Included inside the anonymous namespace of an isa_avx512*.cc: what its tile products share.

static inline __m512i broadcast_quad(const int8_t* p) { return _mm512_set1_epi32(load_quad(p)); }

// Keeps a loaded vector in its register: g++ 12 would read the memory again in each use.
static inline __m512i load_once(const uint8_t* p) {
  __m512i v = _mm512_loadu_si512(p);
  asm("" : "+v"(v));
  return v;
}

// Sums that stay in their registers: g++ 12 would copy them round, and some through memory.
#define BN_STAY(sum) asm("" : "+v"(sum))

// Weights stream from memory; the hardware's prefetcher stops at the end of each page.
constexpr int64_t kPrefetchBytes = 4096;
template <int kLevel>
static inline void prefetch_block(const uint8_t* block) {
  __builtin_prefetch(block + kPrefetchBytes, 0, kLevel);
  __builtin_prefetch(block + kPrefetchBytes + 64, 0, kLevel);
}

// Codes are never shifted in their bytes: field j counts 4^j times, exact in the sums, which are shifted back at the
// end.
static inline __m512i add_fields(const __m512i* sums) {
  __m512i total = sums[0];
  BN_UNROLL for (int j = 1; j < 4; ++j) {
    total = _mm512_add_epi32(total, _mm512_srai_epi32(sums[j], unsigned(2 * j)));
  }
  return total;
}

// a0 b0 c0 d0 a1 ...: lanes of four columns of one row; v[i] has rows 16 l + 4 i + m in dword m of its 128-bit lane l.
static inline void interleave_columns(__m512i* v) {
  const __m512i low01 = _mm512_unpacklo_epi8(v[0], v[1]), low23 = _mm512_unpacklo_epi8(v[2], v[3]);
  const __m512i high01 = _mm512_unpackhi_epi8(v[0], v[1]), high23 = _mm512_unpackhi_epi8(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi16(low01, low23);
  v[1] = _mm512_unpackhi_epi16(low01, low23);
  v[2] = _mm512_unpacklo_epi16(high01, high23);
  v[3] = _mm512_unpackhi_epi16(high01, high23);
}
// Adds sums in that order to 64 in the order of the rows.
static inline void add_in_order(const __m512i* v, int32_t* sums) {
  const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44), b = _mm512_shuffle_i32x4(v[2], v[3], 0x44);
  const __m512i c = _mm512_shuffle_i32x4(v[0], v[1], 0xee), d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  const __m512i rows[4] = {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                           _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd)};
  BN_UNROLL for (int i = 0; i < 4; ++i) {
    int32_t* const out = sums + 16 * i;
    _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_loadu_si512(out), rows[i]));
  }
}
