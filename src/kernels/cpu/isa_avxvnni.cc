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

inline __m256i add_products(__m256i sums, __m256i u, __m256i s) { return _mm256_dpbusd_avx_epi32(sums, u, s); }
#include "kernels/cpu/tile_avx2.inc.h"

#include "kernels/cpu/tile_ops.inc.h"

#include "kernels/cpu/training_ops.inc.h"

// Four products go straight into 32 bits.
inline __m256i mul_add(__m256i sums, __m256i codes, __m256i x) { return _mm256_dpbusd_avx_epi32(sums, codes, x); }
inline __m256i widen(__m256i sums) { return sums; }
constexpr int64_t kBlockSteps = kMaxTernaryCols, kCodeSteps = kMaxTernaryCols;

#include "kernels/cpu/ternary_avx2.inc.h"
#include "kernels/cpu/ternary_quads.inc.h"

#include "kernels/cpu/streamed.inc.h"

}  // namespace

const CpuKernels kAvxVnniKernels = {
    "avxvnni",
    fields<kToFirstLevel>(),
    {kMatmulTokens, 4, pack_tokens, matmul_tile, kSketchMaxCode},
    sketch<kToFirstLevel>(),
    &kAvx2Codecs,
#include "kernels/cpu/table.inc.h"
};
const StreamedKernels kAvxVnniToSecondLevel = {fields<kToSecondLevel>(), sketch<kToSecondLevel>()};

}  // namespace bitnet
