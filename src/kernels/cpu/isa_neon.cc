#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#include <arm_neon.h>

// Baseline 64-bit ARM.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"
#include "kernels/cpu/vec_neon.inc.h"
//
#include "kernels/cpu/float_ops.inc.h"
//
#include "kernels/cpu/dot_ops.inc.h"
//
inline int32x4_t add_products(int32x4_t sums, int8x16_t a, int8x16_t b) {
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
  return vpadalq_s16(sums, vpaddq_s16(low, high));
}
#include "kernels/cpu/tile_neon.inc.h"
//
#include "kernels/cpu/tile_ops.inc.h"

#include "kernels/cpu/training_ops.inc.h"
//
#include "kernels/cpu/sparse_ops.inc.h"

constexpr int64_t kMatmulTokens = 2;
#include "kernels/cpu/ternary_neon.inc.h"
#include "kernels/cpu/ternary_neon_quads.inc.h"
#include "kernels/cpu/ternary_quads.inc.h"

inline int8x8_t broadcast_quad(const int8_t* p) { return vreinterpret_s8_s32(vdup_n_s32(load_quad(p))); }

// Products |code * q| <= 3 * 128 are added in 16 bits, one a lane and column quad: 84 of them stay below 2^15.
constexpr int64_t kQuadsPerWidening = 84;

// Two rows of four 16-bit sums each, for each of N pairs of rows.
template <int N>
struct Sums16 {
  int16x8_t pair[N];
  inline void clear() { BN_UNROLL for (int i = 0; i < N; ++i) pair[i] = vdupq_n_s16(0); }
  inline void add_product(int i, int8x16_t codes, int8x8_t x) {
    pair[2 * i] = vmlal_s8(pair[2 * i], vget_low_s8(codes), x);
    pair[2 * i + 1] = vmlal_s8(pair[2 * i + 1], vget_high_s8(codes), x);
  }
  // sums[0 .. 2N) += the sums of each row.
  inline void widen_to(int32_t* sums) const {
    BN_UNROLL for (int i = 0; i < N; i += 2) {
      const int32x4_t four = vpaddq_s32(vpaddlq_s16(pair[i]), vpaddlq_s16(pair[i + 1]));
      vst1q_s32(sums + 2 * i, vaddq_s32(vld1q_s32(sums + 2 * i), four));
    }
  }
};

void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  for (int64_t r = 0; r < kTileRows; ++r) sums[r] = 0;
  for (int64_t block = 0; block < n_blocks;) {
    const int64_t end = block + kQuadsPerWidening / 4 < n_blocks ? block + kQuadsPerWidening / 4 : n_blocks;
    Sums16<16> sum;
    sum.clear();
    for (; block < end; ++block, tile += kBlockBytes, q += kBlockCols) {
      const int8x8_t x0 = broadcast_quad(q), x1 = broadcast_quad(q + 4);
      const int8x8_t x2 = broadcast_quad(q + 8), x3 = broadcast_quad(q + 12);
      BN_UNROLL for (int i = 0; i < 8; ++i) {
        const uint8x16_t v = vld1q_u8(tile + 16 * i);
        sum.add_product(i, field<0>(v), x0);
        sum.add_product(i, field<1>(v), x1);
        sum.add_product(i, field<2>(v), x2);
        sum.add_product(i, field<3>(v), x3);
      }
    }
    sum.widen_to(sums);
  }
}

void sketch_matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  static_assert(8 * kSketchMaxCode * 128 < 32768, "a block's eight products a lane fit into 16 bits");
  for (int64_t r = 0; r < kTileRows; ++r) sums[r] = 0;
  for (int64_t block = 0; block < n_blocks; ++block, tile += kSketchBlockBytes, q += kSketchBlockCols) {
    int8x8_t x[8];
    BN_UNROLL for (int j = 0; j < 8; ++j) x[j] = broadcast_quad(q + 4 * j);
    Sums16<16> sum;
    sum.clear();
    BN_UNROLL for (int i = 0; i < 8; ++i) {
      const uint8_t* const vectors = tile + i / 4 * (kSketchBlockBytes / 2) + i % 4 * 16;
      const uint8x16_t low_bits = vld1q_u8(vectors + 4 * kVectorBytes);
      const uint8x16_t a = vld1q_u8(vectors), b = vld1q_u8(vectors + kVectorBytes);
      const uint8x16_t c = vld1q_u8(vectors + 2 * kVectorBytes), d = vld1q_u8(vectors + 3 * kVectorBytes);
      sum.add_product(i, sketch_first(a), x[0]);
      sum.add_product(i, sketch_first(b), x[1]);
      sum.add_product(i, sketch_first(c), x[2]);
      sum.add_product(i, sketch_first(d), x[3]);
      sum.add_product(i, sketch_second<0>(a, low_bits), x[4]);
      sum.add_product(i, sketch_second<1>(b, low_bits), x[5]);
      sum.add_product(i, sketch_second<2>(c, low_bits), x[6]);
      sum.add_product(i, sketch_second<3>(d, low_bits), x[7]);
    }
    sum.widen_to(sums);
  }
}

// 2 tokens x 16 rows at once, twice for the tile's 32.
void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  for (int64_t i = 0; i < kMatmulTokens * kTileRows; ++i) sums[i] = 0;
  for (int64_t row = 0; row < kTileRows; row += 16) {
    for (int64_t quad = 0; quad < 4 * n_blocks;) {
      const int64_t end = quad + kQuadsPerWidening < 4 * n_blocks ? quad + kQuadsPerWidening : 4 * n_blocks;
      Sums16<8> first, second;
      first.clear();
      second.clear();
      for (; quad < end; ++quad) {
        const int8x8_t x0 = broadcast_quad(packed + 8 * quad), x1 = broadcast_quad(packed + 8 * quad + 4);
        BN_UNROLL for (int i = 0; i < 4; ++i) {
          const int8x16_t c = vreinterpretq_s8_u8(vld1q_u8(codes + kBlockBytes * quad + 4 * row + 16 * i));
          first.add_product(i, c, x0);
          second.add_product(i, c, x1);
        }
      }
      first.widen_to(sums + row);
      second.widen_to(sums + kTileRows + row);
    }
  }
}

}  // namespace

const CpuKernels kNeonKernels = {
    "neon",
    {matvec_tile, unpack_tile, dot_rows, add_columns},
    {kMatmulTokens, 3, pack_tokens, matmul_tile, 3},
    {sketch_matvec_tile, sketch_unpack_tile},
    &kNeonCodecs,
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
