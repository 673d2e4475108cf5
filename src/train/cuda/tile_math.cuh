#pragma once

#include "train/cuda/train_kernels.h"
#include "train/cuda/values.cuh"

// Tiles of bf16 rows in shared memory, and products of them on tensor cores (mma.sync m16n8k16). A tile has 16-byte
// pieces at `piece ^ (row & 7)`, so that eight rows of one column lie in different banks.
namespace bitnet::cuda {

template <int D>
__device__ inline uint32_t tile_offset(int row, int piece) {
  return uint32_t(row * D + ((piece ^ (row & 7)) << 3)) * 2;  // bytes
}

__device__ inline uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

__device__ inline void copy_16(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
__device__ inline void copies_issued() { asm volatile("cp.async.commit_group;"); }
template <int N>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N));
}

// Rows [first, first + kRows) of a matrix with `stride` values a row; those from n_rows on become 0.
template <int D, int kRows, int kThreads>
__device__ inline void load_tile(uint32_t tile, const Bf16* rows, int64_t stride, int first, int n_rows) {
  constexpr int kPieces = D / 8;
#pragma unroll
  for (int i = 0; i < kRows * kPieces / kThreads; ++i) {
    const int at = i * kThreads + int(threadIdx.x), row = at / kPieces, piece = at % kPieces;
    const bool there = first + row < n_rows;
    copy_16(tile + tile_offset<D>(row, piece), rows + int64_t(there ? first + row : 0) * stride + piece * 8, there);
  }
}

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void load_matrices_turned(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// The left factor's rows [row, row + 16) and columns [16 k, 16 k + 16).
template <int D>
__device__ inline void load_left(uint32_t (&a)[4], uint32_t tile, int row, int k) {
  const int lane = int(threadIdx.x) % 32;
  load_matrices(a, tile + tile_offset<D>(row + lane % 16, 2 * k + lane / 16));
}
// The right factor, 16 of its columns: a tile's rows [row, row + 16) are these columns, its columns 16 k.. the sum's.
template <int D>
__device__ inline void load_right(uint32_t (&b)[4], uint32_t tile, int row, int k) {
  const int lane = int(threadIdx.x) % 32, m = lane / 8;
  load_matrices(b, tile + tile_offset<D>(row + m / 2 * 8 + lane % 8, 2 * k + m % 2));
}
// The same where a tile's rows are the sum's and its columns [16 n, 16 n + 16) the factor's.
template <int D>
__device__ inline void load_right_turned(uint32_t (&b)[4], uint32_t tile, int row, int n) {
  const int lane = int(threadIdx.x) % 32, m = lane / 8;
  load_matrices_turned(b, tile + tile_offset<D>(row + m % 2 * 8 + lane % 8, 2 * n + m / 2));
}

__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Two neighbouring results, 8 columns each, as the left factor of 16 columns.
__device__ inline void as_left(uint32_t (&a)[4], const float (&c0)[4], const float (&c1)[4]) {
  a[0] = pack_bf16(c0[0], c0[1]);
  a[1] = pack_bf16(c0[2], c0[3]);
  a[2] = pack_bf16(c1[0], c1[1]);
  a[3] = pack_bf16(c1[2], c1[3]);
}

template <int N>
__device__ inline void clear(float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
}

}  // namespace bitnet::cuda
