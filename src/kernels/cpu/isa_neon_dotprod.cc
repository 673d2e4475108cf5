#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#include <arm_neon.h>

// ARMv8.2 with the dot product extension.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"
#include "kernels/cpu/vec_neon.inc.h"
//
#include "kernels/cpu/float_ops.inc.h"
//
#include "kernels/cpu/dot_ops.inc.h"
//
inline int32x4_t add_products(int32x4_t sums, int8x16_t a, int8x16_t b) { return vdotq_s32(sums, a, b); }
#include "kernels/cpu/tile_neon.inc.h"
//
#include "kernels/cpu/tile_ops.inc.h"

#include "kernels/cpu/training_ops.inc.h"
//
#include "kernels/cpu/sparse_ops.inc.h"

constexpr int64_t kMatmulTokens = 4;
#include "kernels/cpu/ternary_neon.inc.h"
#include "kernels/cpu/ternary_neon_dot.inc.h"
#include "kernels/cpu/ternary_neon_quads.inc.h"
#include "kernels/cpu/ternary_quads.inc.h"

// 4 tokens x 16 rows in 16 registers, twice for the tile's 32 rows; a lane of x is a token.
void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  for (int64_t row = 0; row < kTileRows; row += 16) {
    int32x4_t sum[4][4];  // [token][four rows]
    BN_UNROLL for (int i = 0; i < 16; ++i) sum[i / 4][i % 4] = vdupq_n_s32(0);
    for (int64_t quad = 0; quad < 4 * n_blocks; ++quad) {
      const int8x16_t x = vld1q_s8(packed + 16 * quad);
      BN_UNROLL for (int i = 0; i < 4; ++i) {
        const int8x16_t c = vreinterpretq_s8_u8(vld1q_u8(codes + kBlockBytes * quad + 4 * row + 16 * i));
        sum[0][i] = vdotq_laneq_s32(sum[0][i], c, x, 0);
        sum[1][i] = vdotq_laneq_s32(sum[1][i], c, x, 1);
        sum[2][i] = vdotq_laneq_s32(sum[2][i], c, x, 2);
        sum[3][i] = vdotq_laneq_s32(sum[3][i], c, x, 3);
      }
    }
    BN_UNROLL for (int i = 0; i < 16; ++i) vst1q_s32(sums + kTileRows * (i / 4) + row + 4 * (i % 4), sum[i / 4][i % 4]);
  }
}

}  // namespace

const CpuKernels kNeonDotprodKernels = {
    "neon_dotprod",
    {matvec_tile, unpack_tile, dot_rows, add_columns},
    {kMatmulTokens, 3, pack_tokens, matmul_tile, kSketchMaxCode},
    {sketch_matvec_tile, sketch_unpack_tile},
    &kNeonCodecs,
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
