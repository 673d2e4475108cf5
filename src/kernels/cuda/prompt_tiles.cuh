#pragma once

#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_block.cuh"

// How products of prompts on Hopper (prompt_wgmma.cu) are divided: tiles of 256 rows and 128 tokens, whole or shared by
// the blocks of a cluster.
namespace bitnet::cuda::tiles {

constexpr int kConsumers = 256;
constexpr int kConsumerWarps = kConsumers / 32;
constexpr int kProducers = 128;
constexpr int kThreads = kConsumers + kProducers;
constexpr int kRowTiles = 16;  // of a tile
constexpr int kCodeBytes = kTokenBlock * kTileCols;
constexpr int kStage_bytes = kCodeBytes + kRowTiles * kTileBytes;
constexpr int kStages = 6;
constexpr int kLead = 4;
constexpr int kGroups = kTokenBlock / 8;  // of eight tokens, the columns of an accumulator's four registers
// Sums of four groups of tokens on their way out, a warpgroup's 128 rows each, in two buffers used in turn. The stride
// keeps the lanes that write them apart.
constexpr int kPassGroups = 4;
constexpr int kSumStride = 128 + 4;
constexpr int kSums = kPassGroups * 8 * kSumStride;
constexpr size_t kShared_bytes = size_t(kStages) * kStage_bytes + 4 * kSums * sizeof(int) + 1024;

// Row tile `tile` of all segments one after the other; with a gate tile by tile of both segments.
struct RowTile {
  int segment, tile;
};
__device__ inline RowTile row_tile(const PromptProduct& call, bool gate, int row_block, int group, int a, int warp) {
  if (gate) return {a, row_block * (kRowTiles / 2) + group * 4 + warp};
  int tile = row_block * kRowTiles + (group * 2 + a) * 4 + warp, segment = 0;
  while (segment + 1 < call.n_segments && tile >= call.segments[segment].n_row_tiles) {
    tile -= call.segments[segment++].n_row_tiles;
  }
  return {segment, tile};
}

__host__ __device__ inline int row_blocks(const PromptProduct& call) {
  if (is_gate(call.epilogue)) return (call.segments[0].n_row_tiles + kRowTiles / 2 - 1) / (kRowTiles / 2);
  int n = 0;
  for (int i = 0; i < call.n_segments; ++i) n += call.segments[i].n_row_tiles;
  return (n + kRowTiles - 1) / kRowTiles;
}

// A tile, or a block's share of one.
struct Piece {
  int token_block, row_block, k_begin, k_end;
  bool shared;
};

// What this block does in each round. Whole tiles come first; the rest is shared by clusters.
template <int kCluster>
struct Schedule {
  int n_tiles, n_token_blocks, n_col_tiles, n_whole;
  __device__ explicit Schedule(const PromptProduct& call)
      : n_token_blocks((call.x.n_tokens + kTokenBlock - 1) / kTokenBlock), n_col_tiles(call.x.n_col_tiles) {
    n_tiles = row_blocks(call) * n_token_blocks;
    const int n_blocks = int(gridDim.x);
    n_whole = kCluster == 1 ? (n_tiles + n_blocks - 1) / n_blocks : n_tiles / n_blocks;
  }
  __device__ bool piece(int round, Piece& p) const {
    const int n_blocks = int(gridDim.x), block = int(blockIdx.x);
    int tile = block + round * n_blocks;
    p.shared = kCluster > 1 && round >= n_whole;
    p.k_begin = 0;
    p.k_end = n_col_tiles;
    if (p.shared) {
      const int rank = block % kCluster;
      tile = n_whole * n_blocks + block / kCluster + (round - n_whole) * (n_blocks / kCluster);
      p.k_begin = rank * n_col_tiles / kCluster;
      p.k_end = (rank + 1) * n_col_tiles / kCluster;
    }
    p.token_block = tile % n_token_blocks;
    p.row_block = tile / n_token_blocks;
    return tile < n_tiles;
  }
};

}  // namespace bitnet::cuda::tiles
