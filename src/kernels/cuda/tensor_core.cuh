#pragma once

#include <cuda_runtime.h>
#include <cstdint>

// Instructions on four codes at a time. A word of the layout holds codes u in {0, 1, 2} of row g (planes 0 and 2) and
// of row g + 8 (planes 1 and 3); masked where they lie, the second row's are four times as large, which a shift at the
// end takes back. The bound of the sums, 4 * 2 * 128 * n_cols, stays below 2^31 up to 2^20 columns.
namespace bitnet::cuda {

__device__ inline void mma_u8s8(int (&acc)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline void mma_s8s8(int (&acc)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// acc[0], acc[1]: row g, tokens 2t and 2t + 1; acc[2], acc[3]: four times row g + 8.
__device__ inline void mma_codes(int (&acc)[4], uint32_t word, uint32_t b0, uint32_t b1) {
  const uint32_t high = word >> 4;
  mma_u8s8(acc, word & 0x03030303u, word & 0x0c0c0c0cu, high & 0x03030303u, high & 0x0c0c0c0cu, b0, b1);
}

__device__ inline int dp4a_u8s8(uint32_t a, uint32_t b, int c) {
  int d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// One token: acc[p] is plane p times 4^p.
__device__ inline void dp4a_codes(int (&acc)[4], uint32_t word, uint32_t b0, uint32_t b1) {
  acc[0] = dp4a_u8s8(word & 0x03030303u, b0, acc[0]);
  acc[1] = dp4a_u8s8(word & 0x0c0c0c0cu, b0, acc[1]);
  acc[2] = dp4a_u8s8(word & 0x30303030u, b1, acc[2]);
  acc[3] = dp4a_u8s8(word & 0xc0c0c0c0u, b1, acc[3]);
}

}  // namespace bitnet::cuda
