#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#include <immintrin.h>

// AVX2 and F16C.
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

inline __m256i add_pairs_to(__m256i sums, __m256i words) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}

// VPMADDUBSW adds two products in 16 bits, saturating. Nothing here can saturate or wrap: |q| <= 128 and the codes are
// 0..3 in the even fields of a byte and, unshifted, 0..12 in the odd ones. One instruction gives at most 2 * 3 * 128 =
// 768 or 2 * 12 * 128 = 3072 in absolute value; a block adds two of either kind to a 16-bit lane, and after 5 blocks,
// at 30720, the lanes are widened to 32 bits.
constexpr int64_t kBlocksPerWidening = 5;

void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  __m256i ones[4], fours[4];  // eight rows each, 32 bits
  BN_UNROLL for (int i = 0; i < 4; ++i) ones[i] = fours[i] = _mm256_setzero_si256();
  for (int64_t block = 0; block < n_blocks;) {
    const int64_t end = block + kBlocksPerWidening < n_blocks ? block + kBlocksPerWidening : n_blocks;
    __m256i ones16[4], fours16[4];
    BN_UNROLL for (int i = 0; i < 4; ++i) ones16[i] = fours16[i] = _mm256_setzero_si256();
    for (; block < end; ++block, tile += kBlockBytes, q += kBlockCols) {
      const __m256i x0 = broadcast_quad(q), x1 = broadcast_quad(q + 4);
      const __m256i x2 = broadcast_quad(q + 8), x3 = broadcast_quad(q + 12);
      BN_UNROLL for (int i = 0; i < 4; ++i) {
        const __m256i v = load_codes(tile + 32 * i), shifted = _mm256_srli_epi16(v, 4);
        const __m256i p0 = _mm256_maddubs_epi16(_mm256_and_si256(v, even), x0);
        const __m256i p1 = _mm256_maddubs_epi16(_mm256_and_si256(v, odd), x1);
        const __m256i p2 = _mm256_maddubs_epi16(_mm256_and_si256(shifted, even), x2);
        const __m256i p3 = _mm256_maddubs_epi16(_mm256_and_si256(shifted, odd), x3);
        ones16[i] = _mm256_add_epi16(ones16[i], _mm256_add_epi16(p0, p2));
        fours16[i] = _mm256_add_epi16(fours16[i], _mm256_add_epi16(p1, p3));
        BN_KEEP_ORDER(ones16[i], fours16[i]);
      }
    }
    BN_UNROLL for (int i = 0; i < 4; ++i) {
      ones[i] = add_pairs_to(ones[i], ones16[i]);
      fours[i] = add_pairs_to(fours[i], fours16[i]);
    }
  }
  BN_UNROLL for (int i = 0; i < 4; ++i) {
    store_sums(sums + 8 * i, _mm256_add_epi32(ones[i], _mm256_srai_epi32(fours[i], 2)));
  }
}

// In 16 bits too: 512 at most a column quad, widened after 64 of them.
constexpr int64_t kQuadsPerWidening = 64;

void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  for (int64_t i = 0; i < kMatmulTokens * kTileRows; ++i) sums[i] = 0;
  for (int64_t quad = 0; quad < 4 * n_blocks;) {
    const int64_t end = quad + kQuadsPerWidening < 4 * n_blocks ? quad + kQuadsPerWidening : 4 * n_blocks;
    for (int half = 0; half < 2; ++half) {
      __m256i sum[kMatmulSums];
      BN_UNROLL for (int i = 0; i < kMatmulSums; ++i) sum[i] = _mm256_setzero_si256();
      const uint8_t* c = codes + quad * 128 + 64 * half;
      const int8_t* x = packed + quad * 4 * kMatmulTokens;
      for (int64_t i = quad; i < end; ++i, c += 128, x += 4 * kMatmulTokens) {
        const __m256i c0 = load_codes(c), c1 = load_codes(c + 32);
        BN_UNROLL for (int t = 0; t < kMatmulTokens; ++t) {
          __m256i four = broadcast_quad(x + 4 * t);
          BN_KEEP_ORDER(four, sum[2 * t]);
          sum[2 * t] = _mm256_add_epi16(sum[2 * t], _mm256_maddubs_epi16(c0, four));
          sum[2 * t + 1] = _mm256_add_epi16(sum[2 * t + 1], _mm256_maddubs_epi16(c1, four));
          BN_KEEP_ORDER(sum[2 * t], sum[2 * t + 1]);
        }
      }
      BN_UNROLL for (int i = 0; i < kMatmulSums; ++i) {
        int32_t* const out = sums + i / 2 * 32 + 16 * half + i % 2 * 8;
        store_sums(out, add_pairs_to(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(out)), sum[i]));
      }
    }
    quad = end;
  }
}

}  // namespace

const CpuKernels kAvx2Kernels = {
    "avx2",
    {matvec_tile, unpack_tile, dot_rows, add_columns},
    {kMatmulTokens, 5, pack_tokens, matmul_tile},
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
