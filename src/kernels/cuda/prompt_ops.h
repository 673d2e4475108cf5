#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/decode_ops.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cstdint>

// Many tokens together. Integers are exact and floats have the order of docs/numerics.md, but for attention_f16().
namespace bitnet::cuda {

constexpr int kTokenBlock = 128;

// int8 activations as the products read them: blocks of 128 tokens, in each the column tiles of 128, in each token by
// token 128 bytes whose 16-byte pieces stand at piece ^ (token & 7), which keeps loads of one piece of eight tokens
// apart and is what wgmma calls a 128-byte swizzle. As fragments, for batch_product(): token by token, in each the
// column tiles, whose words lie in the order of fragment_word().
struct TiledCodes {
  int8_t* codes = nullptr;
  float* inv_scales = nullptr;  // [n_tokens]
  int32_t* sums = nullptr;
  int n_tokens = 0;
  int n_cols = 0;
  int n_col_tiles = 0;
  bool fragments = false;
};

// quantized(norm(x)) of x [n_tokens, n_cols], n_cols a multiple of 16; no norm where its weights are null.
cudaError_t normed_codes(const Launcher& launcher, const float* x, const float* norm, float eps, const TiledCodes& out);
bool normed_codes_takes(int64_t n_cols);

// out [n_tokens, n_rows] of each segment.
struct PromptProduct {
  TiledCodes x;
  int n_segments = 0;
  Segment segments[3];
  Epilogue epilogue = Epilogue::kStore;
};
cudaError_t prompt_mma(const Launcher& launcher, const PromptProduct& call);    // every device
cudaError_t prompt_wgmma(const Launcher& launcher, const PromptProduct& call);  // compute capability 9.0 only
// x as fragments, of a few tokens, up to the next multiple of 64 of which anything may lie.
constexpr int kBatchTokens = 64;
bool batch_product_takes(const TernaryWeights& weights);
cudaError_t batch_product(const Launcher& launcher, const PromptProduct& call);
// The same on Hopper, where a matrix has rows for nearly every multiprocessor, of x that is not as fragments.
bool batch_wgmma_takes(const Launcher& launcher, const PromptProduct& call);
cudaError_t batch_wgmma(const Launcher& launcher, const PromptProduct& call);
// Whether the current device runs code that was compiled for 9.0; not so where it was compiled from PTX (another
// device, or CUDA_FORCE_PTX_JIT=1).
bool hopper_code();

// Rotates q, which becomes f16 times log2(e) / sqrt(head_dim), and k; appends k and v to an f16 cache.
struct PromptRope {
  const float* q = nullptr;  // [n_tokens, n_heads * head_dim]
  const float* k = nullptr;  // [n_tokens, n_kv_heads * head_dim]
  const float* v = nullptr;
  __half* q_out = nullptr;
  Cache cache;
  Rope rope;
  int n_tokens = 0;
  int n_heads = 0;
  int first_position = 0;
};
cudaError_t prompt_rope(const Launcher& launcher, const PromptRope& call);

// Causal attention on tensor cores: products of f16 values with float32 sums, probabilities rounded to f16.
struct PromptAttention {
  const __half* q = nullptr;
  Cache cache;
  int n_tokens = 0;
  int n_heads = 0;
  int first_position = 0;
  float* out = nullptr;  // [n_tokens, n_heads * head_dim]
};
bool prompt_attention_takes(const Cache& cache);
cudaError_t prompt_attention(const Launcher& launcher, const PromptAttention& call);        // every device
cudaError_t prompt_attention_wgmma(const Launcher& launcher, const PromptAttention& call);  // 9.0 only

}  // namespace bitnet::cuda
