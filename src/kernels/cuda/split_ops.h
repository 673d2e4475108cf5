#pragma once

#include "kernels/cuda/cuda_ops.h"

#include <cuda_runtime.h>
#include <cstdint>

// What a step on one of several GPUs does beside its products.
namespace bitnet::cuda {

constexpr int kMaxRanks = 16;
// Which rows of a matrix, columns of what it gives, each rank has: first[rank] to first[rank + 1].
struct Shares {
  int n_ranks = 1;
  int64_t first[kMaxRanks + 1] = {};
};

// out[t] = the row of token ids[t] where the table, rows first_row... of a whole one, has it.
void embed_share(cudaStream_t stream, const FloatTable& table, int64_t first_row, const int32_t* ids, Rows out);
// out[t] = row t of the rank that has row ids[t], of every rank's rows [n_rows, n_cols].
void pick_rows(cudaStream_t stream, const float* parts, const Shares& shares, const int32_t* ids, Rows out);
// Rows of all columns from each rank's [n_rows, its columns], which begin part_floats apart; stored or added.
void join_columns(cudaStream_t stream, const float* parts, int64_t part_floats, const Shares& shares, int64_t n_rows,
                  bool adds, float* out);

}  // namespace bitnet::cuda
