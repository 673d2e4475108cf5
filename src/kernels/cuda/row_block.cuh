#pragma once

#include "kernels/cuda/prompt_ops.h"

namespace bitnet::cuda {

__host__ __device__ inline bool is_gate(Epilogue epilogue) {
  return epilogue == Epilogue::kGateRelu2 || epilogue == Epilogue::kGateSilu;
}

// Blocks of row tiles of all segments, one segment after the other; with a gate both segments share their blocks.
__host__ __device__ inline int n_row_blocks(const PromptProduct& call, int tiles_per_block) {
  int n = 0;
  for (int i = 0; i < (is_gate(call.epilogue) ? 1 : call.n_segments); ++i) {
    n += (call.segments[i].n_row_tiles + tiles_per_block - 1) / tiles_per_block;
  }
  return n;
}

struct RowBlock {
  int segment, tile;  // its first tile
};
__host__ __device__ inline RowBlock row_block(const PromptProduct& call, int block, int tiles_per_block) {
  int segment = 0;
  while (true) {
    const int n = (call.segments[segment].n_row_tiles + tiles_per_block - 1) / tiles_per_block;
    if (block < n) return {segment, block * tiles_per_block};
    block -= n;
    ++segment;
  }
}

}  // namespace bitnet::cuda
