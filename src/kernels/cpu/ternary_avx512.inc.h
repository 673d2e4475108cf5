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
static inline void prefetch_block(const uint8_t* block) {
  _mm_prefetch(reinterpret_cast<const char*>(block + kPrefetchBytes), _MM_HINT_T0);
  _mm_prefetch(reinterpret_cast<const char*>(block + kPrefetchBytes + 64), _MM_HINT_T0);
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
