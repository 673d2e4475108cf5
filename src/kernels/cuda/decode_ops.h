#pragma once

#include "kernels/cuda/cuda_ops.h"

#include <cuda_runtime.h>
#include <cstddef>
#include <cstdint>

// A token's step in few kernels, each of which begins with what the one before it has to finish, and fetches its
// weights before that. They give the bits of the operations in cuda_ops.h.
namespace bitnet::cuda {

// Launches that may begin before those in front of them have ended (programmatic dependent launch), where the device
// has that.
struct Launcher {
  cudaStream_t stream = nullptr;
  bool dependent = false;
  int n_multiprocessors = 1;
};

// What a step starts from and leaves for the next one.
struct StepControl {
  int32_t token = 0;
  int32_t position = 0;
  unsigned long long best = 0;  // of the head: ordered logit and inverted id
  unsigned int n_blocks_done = 0;
  unsigned int floor = 0;  // of the sketch: the ordered greatest lower bound
};
// In the host's memory.
struct StepResult {
  int32_t id = 0;
  float logit = 0;  // not finite where any logit is not
};

struct Segment {
  const uint4* tiles = nullptr;
  float alpha = 1.0f;
  float* out = nullptr;
  int n_rows = 0;
  int n_row_tiles = 0;
};

enum class Epilogue : uint8_t {
  kStore,      // out = y
  kAdd,        // out += y
  kGateRelu2,  // out of segment 0 = gated(y of segment 0, y of segment 1)
  kGateSilu,
};

// y = products of every segment's rows with quantized(norm(x)); no norm where its weights are null.
struct VectorProduct {
  const float* x = nullptr;  // [n_cols], a multiple of 16
  const float* norm = nullptr;
  float eps = 0;
  int n_cols = 0;
  int n_col_tiles = 0;
  int n_segments = 0;
  Segment segments[3];
  Epilogue epilogue = Epilogue::kStore;
};
bool vector_product_takes(const TernaryWeights& weights);
cudaError_t vector_product(const Launcher& launcher, const VectorProduct& call);

// Rotates q and k, appends k and v to the cache at control->position and attends to what is there.
struct TokenAttention {
  const float* q = nullptr;  // [n_heads * head_dim]
  const float* k = nullptr;  // [n_kv_heads * head_dim]
  const float* v = nullptr;
  Cache cache;
  Rope rope;
  int n_heads = 0;
  const StepControl* control = nullptr;
  float* out = nullptr;  // [n_heads * head_dim]
};
size_t token_attention_bytes(const Cache& cache);  // of shared memory
bool token_attention_takes(const Cache& cache, const Rope& rope);
cudaError_t token_attention(const Launcher& launcher, const TokenAttention& call);

// x = the table's row control->token.
cudaError_t token_embedding(const Launcher& launcher, const FloatTable& table, const StepControl* control, float* x);

// A coarse copy of the head (head_sketch.cu); null where there is none.
struct Sketch {
  const int8_t* codes = nullptr;  // [n_rows, n_cols]
  const float* steps = nullptr;   // [n_rows] each
  const float* errors = nullptr;
  const float* lengths = nullptr;
};
void build_sketch(cudaStream_t stream, const FloatTable& table, int8_t* codes, float* steps, float* errors,
                  float* lengths);

// All logits of norm(x), the best of them, and the control's next step: that token at the next position.
struct TokenHead {
  FloatTable table;
  const float* x = nullptr;
  const float* norm = nullptr;
  float eps = 0;
  float* logits = nullptr;  // [n_rows]; with token_best() something else
  float* normed = nullptr;  // [n_cols], for token_best()
  Sketch sketch;
  StepControl* control = nullptr;
  StepResult* result = nullptr;  // two, used in turn by position
};
bool token_head_takes(const FloatTable& table);
cudaError_t token_head(const Launcher& launcher, const TokenHead& call);
// The best only, by the sketch.
cudaError_t token_best(const Launcher& launcher, const TokenHead& call);

}  // namespace bitnet::cuda
