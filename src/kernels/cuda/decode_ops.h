#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/sampling.h"

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

// What a single token's step starts from and leaves for the next one.
struct StepControl {
  int32_t token = 0;
  int32_t position = 0;
  uint64_t draw = 0;  // of a step that samples, and how
  TokenSampling sampling;
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

constexpr int kFewPositions = 128;
// For each new token: rotates q and k, appends k and v to the token's sequence and attends to what is there.
struct TokenAttention {
  const float* q = nullptr;  // [n_tokens, n_heads * head_dim]
  const float* k = nullptr;  // [n_tokens, n_kv_heads * head_dim]
  const float* v = nullptr;
  Cache cache;  // without pages of its own where there are tables
  Rope rope;
  int n_heads = 0;
  int n_tokens = 1;
  const int32_t* positions = nullptr;  // [n_tokens]; negative: a row that belongs to nobody
  int first_position = 0;              // where that is null, of tokens of one sequence (tiled_attention() only)
  bool few_positions = false;          // all below kFewPositions: not worth a cluster
  const int32_t* tables = nullptr;     // [n_tokens, table_stride] pages of each token's sequence
  int table_stride = 0;
  float* out = nullptr;      // [n_tokens, n_heads * head_dim]
  float* scratch = nullptr;  // kAttentionBlocks * cache.n_positions, of tiled_attention()
};
bool token_attention_takes(const Launcher& launcher, const Cache& cache, const Rope& rope, int n_heads);
cudaError_t token_attention(const Launcher& launcher, const TokenAttention& call);
// The same for so many tokens that they keep the whole device busy.
bool batch_attention_takes(const Launcher& launcher, const TokenAttention& call);
cudaError_t batch_attention(const Launcher& launcher, const TokenAttention& call);
// The same with a cache of type kI8, and of prompts. Without k nothing is appended; tiled_append() does nothing else.
bool tiled_cache_takes(int64_t head_dim);
cudaError_t tiled_attention(const Launcher& launcher, const TokenAttention& call);
cudaError_t tiled_append(const Launcher& launcher, const TokenAttention& call);

// All layers of one token in one kernel (token_layers.cu), for contexts that are not long.
constexpr int kMaxLayers = 64;
enum : int { kLayerQ, kLayerK, kLayerV, kLayerO, kLayerGate, kLayerUp, kLayerDown, kLayerMatrices };
enum : int { kStepQkv, kStepO, kStepGate, kStepDown, kLayerSteps };
struct LayerWeights {
  const uint4* tiles[kLayerMatrices] = {};
  const float* norms[kLayerSteps] = {};  // in front of each step's product
  uint8_t *k_cache = nullptr, *v_cache = nullptr;
  float alphas[kLayerMatrices + 1] = {};
};
struct TokenLayers {
  LayerWeights layers[kMaxLayers];
  int n_layers = 0;
  int d_model = 0, d_q = 0, d_kv = 0, d_ff = 0, n_heads = 0;
  int model_col_tiles = 0, q_col_tiles = 0, ff_col_tiles = 0;
  Cache cache;  // of any layer, but for its rows; no pages
  Rope rope;
  float eps = 0;
  bool relu2 = false;
  float* x = nullptr;            // [d_model], in and out
  uint64_t* exchange = nullptr;  // token_layers_words(), zero before the first launch
  uint32_t* epoch = nullptr;     // zero before the first launch
  const int32_t* position = nullptr;
};
// Below which position it takes a token of this shape; 0 if never.
int64_t token_layers_positions(const Launcher& launcher, const TokenLayers& call);
// Of `exchange`; enough for either type of cache where the call names none.
size_t token_layers_words(const TokenLayers& call);
cudaError_t token_layers(const Launcher& launcher, const TokenLayers& call);

// x = the table's row control->token.
cudaError_t token_embedding(const Launcher& launcher, const FloatTable& table, const StepControl* control, float* x);

// A coarse copy of the head (head_sketch.cu); null where there is none. Codes lie as mma.m16n8k32 takes them: row tiles
// of 16, in each column tiles of 128, in each four steps of 32 columns, in each 16 bytes a lane.
struct Sketch {
  int8_t* codes = nullptr;
  float* steps = nullptr;  // [n_rows] each
  float* errors = nullptr;
  float* lengths = nullptr;
  int n_col_tiles = 0;
};
size_t sketch_code_bytes(int64_t n_rows, int64_t n_cols);
// Of table's rows, which are first_row... of the whole head. `codes` were zero.
void build_sketch(cudaStream_t stream, const FloatTable& table, int64_t first_row, const Sketch& sketch);

// What the blocks of a head kernel share about one input. All zero before the first step; a step leaves it so.
struct HeadRow {
  unsigned long long best = 0;   // ordered logit and inverted id
  unsigned long long floor = 0;  // of the sketch: the ordered greatest lower bound and its row's inverted id
  unsigned int n_blocks_done = 0;
  unsigned int inverted_floor = 0;  // a better one, its bits inverted; 0: none
  unsigned int n_candidates = 0;
  // Of the input in 16 bits; the step after sets them anew.
  float inv_scale = 0, length = 0, error = 0;
};

// All or the best logits of norm(x), and the best token of each.
constexpr int kHeadTokens = 64;
struct TokenHead {
  FloatTable table;
  const float* x = nullptr;  // [n_tokens, n_cols]
  const float* norm = nullptr;
  float eps = 0;
  int n_tokens = 1;
  float* logits = nullptr;    // [n_tokens, n_rows]; with best_of_head() what it needs
  float* normed = nullptr;    // [n_tokens, n_cols]
  uint32_t* codes = nullptr;  // head_code_bytes(), for several tokens
  Sketch sketch;
  HeadRow* rows = nullptr;  // [n_tokens]
  // Of a single token's step: where it goes on. Results are then two, used in turn by position; else [n_tokens].
  StepControl* control = nullptr;
  StepResult* results = nullptr;
  // By the sketch, for one token with n_best > 1: room for each warp's greatest lower bound, sketch_warps() floats.
  float* floors = nullptr;
  // By the sketch, for one token that is to be drawn: room for kMaxCandidates exact logits, ordered, with their ids;
  // and whose `sampling` says how many are wanted.
  unsigned long long* candidates = nullptr;
  const StepControl* draw = nullptr;
  // token_head() in parts: the table holds rows first_row... of the head, the blocks of all parts together.
  int64_t first_row = 0;
  unsigned int n_blocks = 0;
};
size_t head_code_bytes(int64_t n_cols);
// So many tokens can best_of_head() take together.
int head_tokens(const FloatTable& table);
bool token_head_takes(const FloatTable& table);
unsigned int token_head_blocks(const Launcher& launcher, const FloatTable& table);
// All logits of one token.
cudaError_t token_head(const Launcher& launcher, const TokenHead& call);
// By the sketch, at most kHeadTokens tokens: the best token of each. With n_best > 1, of one token: logits become the
// n_best largest and all that equal the least of them; any other may be minus infinity.
cudaError_t best_of_head(const Launcher& launcher, const TokenHead& call, int64_t n_best);
int sketch_warps(const Launcher& launcher);

// The token of one step by the rules of runtime/sampler.h, from the candidates of best_of_head() or the logits of
// token_head(): the result is its id and logit, control goes on to it.
constexpr int kMaxDrawnFrom = 1024;  // top_k
constexpr int kMaxCandidates = 4096;
struct TokenDraw {
  const float* logits = nullptr;  // [n_rows]; minus infinity where there are candidates and it is none of them
  int64_t n_rows = 0;
  const unsigned long long* candidates = nullptr;  // null: all logits
  HeadRow* row = nullptr;
  StepControl* control = nullptr;
  StepResult* results = nullptr;  // by parity of the position
};
cudaError_t draw_token(const Launcher& launcher, const TokenDraw& call);

}  // namespace bitnet::cuda
