#pragma once

#include "kernels/cuda/fragment_layout.h"

#include <cuda_runtime.h>
#include <cstdint>

// The operations of kernels/backend.h as launches on a CUDA stream. All pointers are device memory. What is launched
// gives the bits of docs/numerics.md for every shape. Plain structs only: device code sees no library header.
namespace bitnet::cuda {

enum class TableType : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ8_0, kQ4_K, kQ6_K, kI8 };  // kI8: of a cache only

struct FloatTable {
  const uint8_t* data = nullptr;  // rows as stored, row_bytes apart
  TableType type = TableType::kF32;
  int64_t row_bytes = 0;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
};

struct TernaryWeights {
  const uint32_t* words = nullptr;  // fragment_layout.h
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t n_row_tiles = 0;
  int64_t n_col_tiles = 0;
  float alpha = 1.0f;
  const float* groups = nullptr;  // [n_rows, n_cols / group_cols] instead of alpha, or null
  int64_t group_cols = 0;
};

struct Rows {
  float* data = nullptr;  // [n_rows, n_cols]
  int64_t n_rows = 0;
  int64_t n_cols = 0;
};

struct CodeRows {
  int8_t* codes = nullptr;  // [n_rows, stride], zero from n_cols on
  float* inv_scales = nullptr;
  int32_t* sums = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t stride = 0;
};

// A layer's keys and values, rows of row_bytes. Position p of a head stands in row
//   page * page_rows + head * head_rows + p % kPagePositions,
// page = pages[p / kPagePositions], or without pages p / kPagePositions: a cache of one sequence in one piece.
// Of type kI8 the rows of a page are a tile (tiled_cache.cuh).
constexpr int kPagePositions = 64;
struct Cache {
  uint8_t* k = nullptr;
  uint8_t* v = nullptr;
  TableType type = TableType::kF16;  // kF16, kF32, kQ8_0 or kI8
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t row_bytes = 0;
  int64_t n_positions = 0;  // that a sequence may have
  int64_t page_rows = 0;
  int64_t head_rows = 0;
  const int32_t* pages = nullptr;
};
BN_HOST_DEVICE inline int64_t cache_row(const Cache& cache, int64_t head, int64_t position) {
  const int64_t page = position / kPagePositions;
  return (cache.pages == nullptr ? page : cache.pages[page]) * cache.page_rows + head * cache.head_rows +
         position % kPagePositions;
}

struct Rope {
  const float* cos = nullptr;  // [n_positions, n_pairs]
  const float* sin = nullptr;
  int64_t n_pairs = 0;
};

// Blocks of the attention kernel that run at once; each wants cache.n_positions floats of scratch memory.
constexpr int kAttentionBlocks = 264;

// codes [n_rows, n_cols] as bytes -> tiles. The rows are the first of a row tile and those that follow.
void pack_tiles(cudaStream_t, const uint8_t* codes, int64_t n_rows, int64_t n_cols, uint32_t* words);

void embed(cudaStream_t, const FloatTable& table, const int32_t* ids, Rows out);
void rms_norm(cudaStream_t, Rows x, const float* weight, float eps, float* out);
void quantize(cudaStream_t, Rows x, const CodeRows& out);
void fake_quantize(cudaStream_t, Rows x, float* out);
void ternary_linear(cudaStream_t, const TernaryWeights& weight, const CodeRows& x, float* out);
void ternary_linear(cudaStream_t, const TernaryWeights& weight, Rows x, float* out);
void float_linear(cudaStream_t, const FloatTable& weight, Rows x, float* out);
void rope(cudaStream_t, Rows x, int64_t head_dim, const Rope& table, int64_t first_position);
void store_kv(cudaStream_t, const float* k, const float* v, int64_t n_tokens, const Cache& cache,
              int64_t first_position);
void attention(cudaStream_t, Rows q, const Cache& cache, int64_t first_position, float* scores, float* out);
void gate(cudaStream_t, bool relu2, const float* gate, const float* up, int64_t n, float* out);
void add(cudaStream_t, const float* x, int64_t n, float* y);

}  // namespace bitnet::cuda
