#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

// Plain C++ for any processor.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"
#include "kernels/cpu/vec_generic.inc.h"

#include "kernels/cpu/float_ops.inc.h"

#include "kernels/cpu/dot_ops.inc.h"

#include "kernels/cpu/tile_ops.inc.h"

#include "kernels/cpu/training_ops.inc.h"

#include "kernels/cpu/sparse_ops.inc.h"

typedef uint16_t U16x8 __attribute__((vector_size(16)));
typedef int16_t I16x8 __attribute__((vector_size(16)));

// Activations p[0] and p[2] for four rows: what the even bytes of 16 code bytes meet; from p + 1 the odd ones.
inline I16x8 alternate(const int8_t* p) {
  const int16_t a = p[0], b = p[2];
  return I16x8{a, b, a, b, a, b, a, b};
}
// Sum over the four fields of a byte in each 16-bit lane.
inline I16x8 field_products(U16x8 bytes, const I16x8* x) {
  return I16x8(bytes & 3) * x[0] + I16x8(bytes >> 2 & 3) * x[1] + I16x8(bytes >> 4 & 3) * x[2] +
         I16x8(bytes >> 6) * x[3];
}

// A product is at most 3 * 128 in absolute value and a block adds eight to each 16-bit lane: 10 blocks reach 30720.
constexpr int64_t kBlocksPerWidening = 10;

void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  for (int64_t r = 0; r < kTileRows; ++r) sums[r] = 0;
  for (int64_t block = 0; block < n_blocks;) {
    const int64_t end = block + kBlocksPerWidening < n_blocks ? block + kBlocksPerWidening : n_blocks;
    I16x8 lanes[kTileRows / 4] = {};  // two a row
    for (; block < end; ++block, tile += kBlockBytes, q += kBlockCols) {
      I16x8 even[4], odd[4];
      for (int j = 0; j < 4; ++j) {
        even[j] = alternate(q + 4 * j);
        odd[j] = alternate(q + 4 * j + 1);
      }
      for (int i = 0; i < kTileRows / 4; ++i) {
        const U16x8 bytes = U16x8(load_bytes(tile + 16 * i));
        lanes[i] += field_products(bytes & 255, even) + field_products(bytes >> 8, odd);
      }
    }
    for (int64_t r = 0; r < kTileRows; ++r) sums[r] += lanes[r / 4][r % 4 * 2] + lanes[r / 4][r % 4 * 2 + 1];
  }
}

void sketch_matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  for (int64_t r = 0; r < kTileRows; ++r) sums[r] = 0;
  for (int64_t block = 0; block < n_blocks; ++block, q += kSketchBlockCols) {
    for (int64_t group = 0; group < 2; ++group, tile += kSketchBlockBytes / 2) {
      int32_t lanes[kVectorBytes] = {};
      for (int v = 0; v < 4; ++v) {
        const uint8_t *const codes = tile + v * kVectorBytes, *const low_bits = tile + 4 * kVectorBytes;
        for (int b = 0; b < kVectorBytes; ++b) {
          lanes[b] += (codes[b] & 31) * q[4 * v + b % 4];
          lanes[b] += ((codes[b] >> 3 & 28) | (low_bits[b] >> 2 * v & 3)) * q[16 + 4 * v + b % 4];
        }
      }
      for (int b = 0; b < kVectorBytes; ++b) sums[16 * group + b / 4] += lanes[b];
    }
  }
}

}  // namespace

const CpuKernels kGenericKernels = {
    "generic", {matvec_tile, nullptr, dot_rows, add_columns}, {}, {sketch_matvec_tile, nullptr}, &kPlainTernaryCodecs,
#include "kernels/cpu/table.inc.h"
};

}  // namespace bitnet
