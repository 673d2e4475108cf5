#pragma once

#include "train/cuda/train_kernels.h"

#include <cuda_runtime.h>
#include <cstdint>

// The linears of a model whose parameters several GPUs share (core/shard_layout.h), as launches on a CUDA stream. All
// pointers are device memory.
namespace bitnet::cuda {

constexpr int kCodesPerWord = 16;  // of 2 bits, code + 1

struct ShardedLinear {
  int64_t place = 0, n = 0;             // what this rank has of it, in its shard; place in whole words
  int64_t n_values = 0;                 // of all ranks
  int64_t offset = 0;                   // from its bucket's begin
  int64_t piece = 0, bucket_place = 0;  // of its bucket
  float* alpha = nullptr;               // and 1 / alpha
  void* codes = nullptr;                // [n_values], of the precision
};

// sums [n_linears]: of |w| of what this rank has. `parts` has kShardSumParts values for each.
constexpr int kShardSumParts = 64;
void sum_shard(cudaStream_t, const ShardedLinear* linears, int n_linears, const float* shard, double* parts,
               double* sums);
// From every rank's sums [n_ranks, n_linears]: all alphas, and the codes of what this rank has, packed in the order of
// its shard.
void pack_shard(cudaStream_t, const ShardedLinear* linears, int n_linears, const float* shard, const double* sums,
                int n_ranks, uint32_t* packed);
// All codes, from every rank's packed ones [n_ranks, n_words].
void unpack_shards(cudaStream_t, Precision, const ShardedLinear* linears, int n_linears, const uint32_t* packed,
                   int64_t n_words);

}  // namespace bitnet::cuda
