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

inline __m256i add_products(__m256i sums, __m256i u, __m256i s) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
}
#include "kernels/cpu/tile_avx2.inc.h"

#include "kernels/cpu/tile_ops.inc.h"

#include "kernels/cpu/training_ops.inc.h"

// VPMADDUBSW adds two products in 16 bits, saturating. Nothing here can saturate or wrap: |q| <= 128, and lanes are
// widened to 32 bits before their sum can reach 2^15.
inline __m256i mul_add(__m256i sums, __m256i codes, __m256i x) {
  return _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, x));
}
inline __m256i widen(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
// Steps of two products of a code up to 12 and two of them a lane: 2 * 12 * 2 * 128; of one up to 3: 2 * 3 * 128.
constexpr int64_t kBlockSteps = 5, kCodeSteps = 42;

#include "kernels/cpu/ternary_avx2.inc.h"
#include "kernels/cpu/ternary_quads.inc.h"

#include "kernels/cpu/streamed.inc.h"

}  // namespace

const CpuKernels kAvx2Kernels = {
    "avx2",       fields<kToFirstLevel>(), {kMatmulTokens, 5, pack_tokens, matmul_tile, 3}, sketch<kToFirstLevel>(),
    &kAvx2Codecs,
#include "kernels/cpu/table.inc.h"
};
const StreamedKernels kAvx2ToSecondLevel = {fields<kToSecondLevel>(), sketch<kToSecondLevel>()};

}  // namespace bitnet
