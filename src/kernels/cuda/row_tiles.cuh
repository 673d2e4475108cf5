#pragma once

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"

// Row tiles of a product's segments, numbered: with a gate, tiles of both segments in turn; else one segment after the
// other.
namespace bitnet::cuda {

__host__ __device__ inline bool is_gate(Epilogue epilogue) {
  return epilogue == Epilogue::kGateRelu2 || epilogue == Epilogue::kGateSilu;
}

struct RowTile {
  int segment, tile;
};
__device__ inline RowTile row_tile(const Segment* segments, bool gate, int i) {
  if (gate) return {i % 2, i / 2};
  int segment = 0;
  while (i >= segments[segment].n_row_tiles) i -= segments[segment++].n_row_tiles;
  return {segment, i};
}
__device__ inline const uint4* row_tile_codes(const Segment* segments, bool gate, int n_col_tiles, int i) {
  const RowTile at = row_tile(segments, gate, i);
  return segments[at.segment].tiles + size_t(at.tile) * n_col_tiles * 32;
}

#if __CUDA_ARCH__ >= 900
// Starts copies of n row tiles from `first` on, one after the other, which `arrived` waits for; by one thread.
__device__ inline void fetch_row_tiles(const Segment* segments, bool gate, int n_col_tiles, int first, int n,
                                       uint8_t* to, uint64_t* arrived) {
  const uint32_t tile_bytes = uint32_t(n_col_tiles) * kTileBytes;
  barrier_expect(arrived, uint32_t(n) * tile_bytes);
  for (int i = 0; i < n; ++i) {
    bulk_copy(to + i * tile_bytes, row_tile_codes(segments, gate, n_col_tiles, first + i), tile_bytes, arrived);
  }
}
#endif
// The same by `n_threads` threads, from `thread` on, with async_copy16().
__device__ inline void copy_row_tiles(const Segment* segments, bool gate, int n_col_tiles, int first, int n, uint4* to,
                                      int thread, int n_threads) {
  for (int i = 0; i < n; ++i) {
    const uint4* const from = row_tile_codes(segments, gate, n_col_tiles, first + i);
    for (int j = thread; j < n_col_tiles * 32; j += n_threads) async_copy16(to + i * n_col_tiles * 32 + j, from + j);
  }
}

// What a row tile puts out.
struct TileOut {
  float* out;
  int n_rows, row0;
  float alpha;
};
__device__ inline TileOut tile_out(const Segment* segments, bool gate, int i) {
  const RowTile at = row_tile(segments, gate, i);
  const Segment& s = segments[at.segment];
  return {s.out, s.n_rows, at.tile * 16, s.alpha};
}

}  // namespace bitnet::cuda
