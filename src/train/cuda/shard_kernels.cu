#include "train/cuda/shard_kernels.h"
#include "train/cuda/ternary_code.cuh"
#include "train/cuda/values.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kBlocks = 64;  // of a linear

// Blocks in y: the linears. In double, so that sums of floats are as good as exact.
__global__ void sum_parts_kernel(const ShardedLinear* linears, const float* shard, double* parts) {
  __shared__ double shared[32];
  const ShardedLinear& linear = linears[blockIdx.y];
  const float* const w = shard + linear.place;
  double sum = 0;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 4; i < linear.n;
       i += int64_t(kShardSumParts) * kThreads * 4) {
    float v[4] = {};
    if (i + 4 <= linear.n) {
      load<4>(w + i, v);
    } else {
      for (int j = 0; i + j < linear.n; ++j) v[j] = w[i + j];
    }
    sum += (double(fabsf(v[0])) + double(fabsf(v[1]))) + (double(fabsf(v[2])) + double(fabsf(v[3])));
  }
  sum = block_join<SumOf>(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.y * kShardSumParts + blockIdx.x] = sum;
}

__global__ void join_parts_kernel(const double* parts, double* sums) {
  static_assert(kShardSumParts == 64);
  const double* const of_linear = parts + blockIdx.x * kShardSumParts;
  double sum = of_linear[threadIdx.x] + of_linear[threadIdx.x + 32];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// A word a thread; behind a linear's end its last word has what lies between two weights, zeros.
__global__ void pack_kernel(const ShardedLinear* linears, const float* shard, const double* sums, int n_ranks,
                            uint32_t* packed) {
  const ShardedLinear& linear = linears[blockIdx.y];
  double sum = 0;
  for (int rank = 0; rank < n_ranks; ++rank) sum += sums[rank * int(gridDim.y) + int(blockIdx.y)];
  const auto [scale, alpha] = ternary_scale(sum, linear.n_values);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    linear.alpha[0] = alpha;
    linear.alpha[1] = 1.0f / alpha;
  }
  const int64_t n_words = (linear.n + kCodesPerWord - 1) / kCodesPerWord;
  for (int64_t word = int64_t(blockIdx.x) * kThreads + threadIdx.x; word < n_words;
       word += int64_t{kBlocks} * kThreads) {
    const float* const w = shard + linear.place + word * kCodesPerWord;
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kCodesPerWord; i += 4) {
      float v[4];
      load<4>(w + i, v);
#pragma unroll
      for (int j = 0; j < 4; ++j) bits |= uint32_t(int(ternary(v[j], scale)) + 1) << (2 * (i + j));
    }
    packed[linear.place / kCodesPerWord + word] = bits;
  }
}

template <class T>
__global__ void unpack_kernel(const ShardedLinear* linears, const uint32_t* packed, int64_t words_per_rank) {
  const ShardedLinear& linear = linears[blockIdx.y];
  T* const codes = static_cast<T*>(linear.codes);
  const bool aligned = reinterpret_cast<uintptr_t>(codes) % (4 * sizeof(T)) == 0;  // they follow other codes
  const uint32_t piece_words = uint32_t(linear.piece / kCodesPerWord);
  const uint32_t n_words = uint32_t((linear.n_values + kCodesPerWord - 1) / kCodesPerWord);
  for (uint32_t word = blockIdx.x * kThreads + threadIdx.x; word < n_words; word += kBlocks * kThreads) {
    const uint32_t in_bucket = uint32_t(linear.offset / kCodesPerWord) + word;
    const uint32_t rank = in_bucket / piece_words;
    const uint32_t bits =
        packed[int64_t(rank) * words_per_rank + linear.bucket_place / kCodesPerWord + (in_bucket - rank * piece_words)];
    const int64_t first = int64_t(word) * kCodesPerWord;
#pragma unroll
    for (int i = 0; i < kCodesPerWord; i += 4) {
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] = float(int(bits >> (2 * (i + j)) & 3u) - 1);
      if (aligned && first + i + 4 <= linear.n_values) {
        store<4>(codes + first + i, v);
      } else {
        for (int j = 0; j < 4 && first + i + j < linear.n_values; ++j) codes[first + i + j] = T(v[j]);
      }
    }
  }
}

}  // namespace

void sum_shard(cudaStream_t stream, const ShardedLinear* linears, int n_linears, const float* shard, double* parts,
               double* sums) {
  const dim3 grid(kShardSumParts, unsigned(n_linears));
  sum_parts_kernel<<<grid, kThreads, 0, stream>>>(linears, shard, parts);
  join_parts_kernel<<<unsigned(n_linears), 32, 0, stream>>>(parts, sums);
}

void pack_shard(cudaStream_t stream, const ShardedLinear* linears, int n_linears, const float* shard,
                const double* sums, int n_ranks, uint32_t* packed) {
  const dim3 grid(kBlocks, unsigned(n_linears));
  pack_kernel<<<grid, kThreads, 0, stream>>>(linears, shard, sums, n_ranks, packed);
}

void unpack_shards(cudaStream_t stream, Precision precision, const ShardedLinear* linears, int n_linears,
                   const uint32_t* packed, int64_t n_words) {
  const dim3 grid(kBlocks, unsigned(n_linears));
  if (precision == Precision::kBf16) {
    unpack_kernel<Bf16><<<grid, kThreads, 0, stream>>>(linears, packed, n_words);
  } else {
    unpack_kernel<float><<<grid, kThreads, 0, stream>>>(linears, packed, n_words);
  }
}

}  // namespace bitnet::cuda
