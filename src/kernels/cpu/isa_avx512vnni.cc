#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#if defined(__GNUC__) && !defined(__clang__)
// g++ 12's own header initialises "undefined" vectors with themselves and then warns about it (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

// AVX-512 F, BW, VL, DQ and VNNI.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"
#include "kernels/cpu/vec_avx512.inc.h"

#include "kernels/cpu/float_ops.inc.h"

#include "kernels/cpu/dot_ops.inc.h"

constexpr int64_t kMatmulTokens = 12;
#include "kernels/cpu/ternary_quads.inc.h"

inline __m512i broadcast_quad(const int8_t* p) { return _mm512_set1_epi32(load_quad(p)); }

// Keeps a loaded vector in its register: g++ 12 would read the memory again in each use.
inline __m512i load_once(const uint8_t* p) {
  __m512i v = _mm512_loadu_si512(p);
  asm("" : "+v"(v));
  return v;
}

// Weights stream from memory; the hardware's prefetcher stops at the end of each page.
constexpr int64_t kPrefetchBytes = 4096;

// The codes are never shifted: field j of a byte is its code times 4^j, exact in the sums, which are shifted back once
// at the end.
void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  __m512i low[4], high[4];  // rows 0..15 and 16..31, by field
  BN_UNROLL for (int j = 0; j < 4; ++j) low[j] = high[j] = _mm512_setzero_si512();
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, q += kBlockCols) {
    _mm_prefetch(reinterpret_cast<const char*>(tile + kPrefetchBytes), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(tile + kPrefetchBytes + 64), _MM_HINT_T0);
    const __m512i a = load_once(tile), b = load_once(tile + 64);
    BN_UNROLL for (int j = 0; j < 4; ++j) {
      const __m512i x = broadcast_quad(q + 4 * j);
      low[j] = _mm512_dpbusd_epi32(low[j], _mm512_and_si512(a, field[j]), x);
      high[j] = _mm512_dpbusd_epi32(high[j], _mm512_and_si512(b, field[j]), x);
    }
  }
  BN_UNROLL for (int j = 1; j < 4; ++j) {
    low[0] = _mm512_add_epi32(low[0], _mm512_srai_epi32(low[j], unsigned(2 * j)));
    high[0] = _mm512_add_epi32(high[0], _mm512_srai_epi32(high[j], unsigned(2 * j)));
  }
  _mm512_storeu_si512(sums, low[0]);
  _mm512_storeu_si512(sums + 16, high[0]);
}

void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  const __m512i mask = _mm512_set1_epi8(3);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 4 * kBlockBytes) {
    BN_UNROLL for (int half = 0; half < 2; ++half) {
      const __m512i v = load_once(tile + 64 * half);
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        _mm512_storeu_si512(codes + j * kBlockBytes + 64 * half,
                            _mm512_and_si512(_mm512_srli_epi16(v, unsigned(2 * j)), mask));
      }
    }
  }
}

// 12 tokens x 32 rows in 24 registers.
void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int32_t* sums) {
  __m512i low[kMatmulTokens], high[kMatmulTokens];
  BN_UNROLL for (int t = 0; t < kMatmulTokens; ++t) low[t] = high[t] = _mm512_setzero_si512();
  for (int64_t quad = 0; quad < 4 * n_blocks; ++quad, codes += 128, packed += 4 * kMatmulTokens) {
    const __m512i a = load_once(codes), b = load_once(codes + 64);
    BN_UNROLL for (int t = 0; t < kMatmulTokens; ++t) {
      __m512i x = broadcast_quad(packed + 4 * t);
      asm("" : "+v"(x));
      low[t] = _mm512_dpbusd_epi32(low[t], a, x);
      high[t] = _mm512_dpbusd_epi32(high[t], b, x);
    }
  }
  BN_UNROLL for (int t = 0; t < kMatmulTokens; ++t) {
    _mm512_storeu_si512(sums + kTileRows * t, low[t]);
    _mm512_storeu_si512(sums + kTileRows * t + 16, high[t]);
  }
}

}  // namespace

const CpuKernels kAvx512VnniKernels = {
    "avx512vnni", matvec_tile, kMatmulTokens, 8, unpack_tile, pack_tokens, matmul_tile,
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
