// Included inside the anonymous namespace of an isa_NAME.cc with 256-bit integers: what its tile products share.
// 6 tokens x 16 rows of sums fill 12 registers; a tile's two halves follow each other.
constexpr int64_t kMatmulTokens = 6;
constexpr int kMatmulSums = 2 * int(kMatmulTokens);

// Ends a step: g++ 12 would otherwise start the loads of all steps first and spill the sums that they displace.
#define BN_KEEP_ORDER(a, b) asm volatile("" : "+x"(a), "+x"(b))

static inline __m256i broadcast_quad(const int8_t* p) { return _mm256_set1_epi32(load_quad(p)); }
static inline __m256i load_codes(const uint8_t* p) {
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  asm("" : "+x"(v));  // keeps it in its register: g++ 12 would read the memory again in each use
  return v;
}
static inline __m256i load_values(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline void store_sums(int32_t* p, __m256i sums) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), sums); }

static void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  const __m256i mask = _mm256_set1_epi8(3);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 4 * kBlockBytes) {
    for (int part = 0; part < 4; ++part) {
      const __m256i v = load_codes(tile + 32 * part);
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        const __m256i field = _mm256_and_si256(_mm256_srli_epi16(v, 2 * j), mask);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + j * kBlockBytes + 32 * part), field);
      }
    }
  }
}
