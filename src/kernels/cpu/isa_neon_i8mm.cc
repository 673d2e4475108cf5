#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#include <arm_neon.h>

// ARMv8.2 with the dot product and the 8-bit matrix multiply extensions.
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

// SMMLA multiplies 2 rows x 8 columns with 2 tokens x 8 columns: codes [column octet][row pair: 16][2][8], activations
// [column octet][token pair: 2][2][8].
constexpr int64_t kOctetBytes = kTileRows * 8;

// Two column quads of four rows.
inline void store_octet(int8x16_t first, int8x16_t second, uint8_t* codes) {
  const int32x4_t a = vreinterpretq_s32_s8(first), b = vreinterpretq_s32_s8(second);
  vst1q_u8(codes, vreinterpretq_u8_s32(vzip1q_s32(a, b)));
  vst1q_u8(codes + 16, vreinterpretq_u8_s32(vzip2q_s32(a, b)));
}
void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 2 * kOctetBytes) {
    for (int64_t i = 0; i < 8; ++i) {  // four rows
      const uint8x16_t v = vld1q_u8(tile + 16 * i);
      store_octet(field<0>(v), field<1>(v), codes + 32 * i);
      store_octet(field<2>(v), field<3>(v), codes + kOctetBytes + 32 * i);
    }
  }
}
void sketch_unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  for (int64_t block = 0; block < n_blocks; ++block, tile += kSketchBlockBytes, codes += 4 * kOctetBytes) {
    for (int64_t i = 0; i < 8; ++i) {  // four rows
      const uint8_t* const vectors = tile + i / 4 * (kSketchBlockBytes / 2) + i % 4 * 16;
      const uint8x16_t low_bits = vld1q_u8(vectors + 4 * kVectorBytes);
      const uint8x16_t a = vld1q_u8(vectors), b = vld1q_u8(vectors + kVectorBytes);
      const uint8x16_t c = vld1q_u8(vectors + 2 * kVectorBytes), d = vld1q_u8(vectors + 3 * kVectorBytes);
      uint8_t* const out = codes + 32 * i;
      store_octet(sketch_first(a), sketch_first(b), out);
      store_octet(sketch_first(c), sketch_first(d), out + kOctetBytes);
      store_octet(sketch_second<0>(a, low_bits), sketch_second<1>(b, low_bits), out + 2 * kOctetBytes);
      store_octet(sketch_second<2>(c, low_bits), sketch_second<3>(d, low_bits), out + 3 * kOctetBytes);
    }
  }
}

void pack_tokens(const int8_t* q, int64_t stride, int64_t n_tokens, int64_t n_blocks, int8_t* packed) {
  for (int64_t t = 0; t < kMatmulTokens; ++t) {
    for (int64_t octet = 0; octet < 2 * n_blocks; ++octet) {
      const int8x8_t eight = t < n_tokens ? vld1_s8(q + t * stride + 8 * octet) : vdup_n_s8(0);
      vst1_s8(packed + (octet * kMatmulTokens + t) * 8, eight);
    }
  }
}

// 4 tokens x 16 rows in 16 registers of 2 rows x 2 tokens, twice for the tile's 32 rows.
void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  for (int64_t row = 0; row < kTileRows; row += 16) {
    int32x4_t sum[2][8];  // [token pair][row pair]
    BN_UNROLL for (int i = 0; i < 16; ++i) sum[i / 8][i % 8] = vdupq_n_s32(0);
    for (int64_t octet = 0; octet < 2 * n_blocks; ++octet) {
      const int8x16_t x0 = vld1q_s8(packed + 32 * octet), x1 = vld1q_s8(packed + 32 * octet + 16);
      BN_UNROLL for (int i = 0; i < 8; ++i) {
        const int8x16_t c = vreinterpretq_s8_u8(vld1q_u8(codes + kOctetBytes * octet + 8 * row + 16 * i));
        sum[0][i] = vmmlaq_s32(sum[0][i], c, x0);
        sum[1][i] = vmmlaq_s32(sum[1][i], c, x1);
      }
    }
    for (int pair = 0; pair < 2; ++pair) {
      int32_t* const out = sums + 2 * pair * kTileRows + row;
      BN_UNROLL for (int i = 0; i < 8; i += 2) {
        vst1q_s32(out + 2 * i, vuzp1q_s32(sum[pair][i], sum[pair][i + 1]));
        vst1q_s32(out + kTileRows + 2 * i, vuzp2q_s32(sum[pair][i], sum[pair][i + 1]));
      }
    }
  }
}

}  // namespace

const CpuKernels kNeonI8mmKernels = {
    "neon_i8mm",
    {matvec_tile, unpack_tile, dot_rows, add_columns},
    {kMatmulTokens, 3, pack_tokens, matmul_tile, kSketchMaxCode},
    {sketch_matvec_tile, sketch_unpack_tile},
    &kNeonCodecs,
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
