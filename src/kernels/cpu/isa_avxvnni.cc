#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#include <immintrin.h>

// AVX2, F16C and the 256-bit dot product of AVX-VNNI.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"
#include "kernels/cpu/vec_avx2.inc.h"

#include "kernels/cpu/float_ops.inc.h"

#include "kernels/cpu/dot_ops.inc.h"
#include "kernels/cpu/ternary_avx2.inc.h"
#include "kernels/cpu/ternary_quads.inc.h"
//
#include "kernels/cpu/sparse_avx2.inc.h"

// Fields 0 and 2 of a byte are added as codes, fields 1 and 3 as 4 * codes without a shift; those sums are divided once
// at the end.
void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  __m256i ones[4], fours[4];  // eight rows each
  BN_UNROLL for (int i = 0; i < 4; ++i) ones[i] = fours[i] = _mm256_setzero_si256();
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, q += kBlockCols) {
    const __m256i x0 = broadcast_quad(q), x1 = broadcast_quad(q + 4);
    BN_UNROLL for (int i = 0; i < 4; ++i) {
      const int8_t* rest = q + 8;
      asm volatile("" : "+r"(rest));  // read anew each time: two registers fewer, and all sums stay in theirs
      const __m256i x2 = broadcast_quad(rest), x3 = broadcast_quad(rest + 4);
      const __m256i v = load_codes(tile + 32 * i), shifted = _mm256_srli_epi16(v, 4);
      ones[i] = _mm256_dpbusd_avx_epi32(ones[i], _mm256_and_si256(v, even), x0);
      fours[i] = _mm256_dpbusd_avx_epi32(fours[i], _mm256_and_si256(v, odd), x1);
      ones[i] = _mm256_dpbusd_avx_epi32(ones[i], _mm256_and_si256(shifted, even), x2);
      fours[i] = _mm256_dpbusd_avx_epi32(fours[i], _mm256_and_si256(shifted, odd), x3);
      BN_KEEP_ORDER(ones[i], fours[i]);
    }
  }
  BN_UNROLL for (int i = 0; i < 4; ++i) {
    store_sums(sums + 8 * i, _mm256_add_epi32(ones[i], _mm256_srai_epi32(fours[i], 2)));
  }
}

void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  for (int half = 0; half < 2; ++half) {
    __m256i sum[kMatmulSums];
    BN_UNROLL for (int i = 0; i < kMatmulSums; ++i) sum[i] = _mm256_setzero_si256();
    const uint8_t* c = codes + 64 * half;
    const int8_t* x = packed;
    for (int64_t quad = 0; quad < 4 * n_blocks; ++quad, c += 128, x += 4 * kMatmulTokens) {
      const __m256i c0 = load_codes(c), c1 = load_codes(c + 32);
      BN_UNROLL for (int t = 0; t < kMatmulTokens; ++t) {
        __m256i four = broadcast_quad(x + 4 * t);
        BN_KEEP_ORDER(four, sum[2 * t]);
        sum[2 * t] = _mm256_dpbusd_avx_epi32(sum[2 * t], c0, four);
        sum[2 * t + 1] = _mm256_dpbusd_avx_epi32(sum[2 * t + 1], c1, four);
        BN_KEEP_ORDER(sum[2 * t], sum[2 * t + 1]);
      }
    }
    BN_UNROLL for (int i = 0; i < kMatmulSums; ++i) store_sums(sums + i / 2 * 32 + 16 * half + i % 2 * 8, sum[i]);
  }
}

}  // namespace

const CpuKernels kAvxVnniKernels = {
    "avxvnni",
    {matvec_tile, unpack_tile, dot_rows, add_columns},
    {kMatmulTokens, 4, pack_tokens, matmul_tile},
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
