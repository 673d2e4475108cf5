#pragma once

#include <cuda_runtime.h>
#include <cstdint>

// The kernels of a training step as launches on a CUDA stream. All pointers are device memory. Every sum has an order
// that the shapes fix, so that a step gives the same bits each time. Plain structs only: device code sees no library
// header.
//
// A linear's product is of codes alone. What its codes are to be multiplied with, the input's 1/s of each token and the
// weight's alpha, comes in with the kernel that reads the product; in the backward pass it comes in with the kernel
// that writes the gradient of the product: dy alpha / s, whose product with the weight's codes is the input's gradient
// without its s, and whose product with the input's codes is the weight's without its 1 / alpha.
namespace bitnet::cuda {

enum class Precision : uint8_t { kBf16, kFloat32 };  // of activations that are `void`
inline int64_t value_bytes(Precision precision) { return precision == Precision::kBf16 ? 2 : 4; }

// How inputs become what products see.
struct QuantizeRule {
  bool enabled = true;
  float lambda = 1;  // below 1 the values are x + lambda (q - x), with a scale of 1
};
// What a product is to be multiplied with.
struct ProductScale {
  const float* inv_scales = nullptr;  // [n_rows]
  const float* alpha = nullptr;       // [1]
};
struct HeadsShape {
  int n_sequences = 0, n_positions = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_pairs = 0;
  __host__ __device__ int n_tokens() const { return n_sequences * n_positions; }
  __host__ __device__ int q_cols() const { return n_heads * head_dim; }
  __host__ __device__ int kv_cols() const { return n_kv_heads * head_dim; }
  __host__ __device__ int qkv_cols() const { return q_cols() + 2 * kv_cols(); }
};

// Columns that row kernels take; multiples of 4, or fewer.
constexpr int kMaxColumns = 32768, kMaxOddColumns = 8192;
// Tokens whose gradients of a norm are added up together: few enough that there are blocks for a whole GPU.
__host__ __device__ inline int norm_chunk(int64_t n_rows) {
  return n_rows >= 65536 ? 32 : n_rows <= 8192 ? 4 : int(n_rows / 2048);
}
inline int64_t norm_chunks(int64_t n_rows) { return (n_rows + norm_chunk(n_rows) - 1) / norm_chunk(n_rows); }

// What a row kernel reads may still be to be added up: out = x + product times scale; out may be x.
struct ProductSum {
  const void* product = nullptr;
  ProductScale by;
  const float* x = nullptr;
  float* out = nullptr;
};
// What it writes may be wanted once more, times a scale, as the gradient of a product.
struct ScaledCopy {
  ProductScale by;
  void* out = nullptr;  // null: it is not
};

// row_kernels.cu. out [n_rows, n_cols] codes (or values, with inverse scales of 1); norm may be null.
void norm_quantize(cudaStream_t, Precision, const float* x, int n_rows, int n_cols, const float* norm, float eps,
                   QuantizeRule, void* out, float* inv_scales);
void norm_quantize(cudaStream_t, Precision, const void* x, int n_rows, int n_cols, const float* norm, float eps,
                   QuantizeRule, void* out, float* inv_scales);
void norm_quantize(cudaStream_t, Precision, const ProductSum& x, int n_rows, int n_cols, const float* norm, float eps,
                   QuantizeRule, void* out, float* inv_scales);
// out = norm(x).
void norm(cudaStream_t, Precision, const float* x, int n_rows, int n_cols, const float* norm, float eps, void* out);
// Of activation(gate) up, of products gate_up [n_rows, 2 n_cols].
void gate_quantize(cudaStream_t, Precision, bool relu2, const void* gate_up, ProductScale gate, ProductScale up,
                   int n_rows, int n_cols, const float* norm, float eps, QuantizeRule, void* out, float* inv_scales);

// d: the gradient of the norm's output times inv_scales (null: as it is). `partial` [norm_chunks, n_cols] is scratch.
struct NormGradient {
  const float* norm = nullptr;  // null: there is none
  float eps = 0;
  const float* inv_scales = nullptr;
  float* partial = nullptr;
  float* dnorm = nullptr;  // added to
};
void norm_backward(cudaStream_t, Precision, const float* x, const void* d, int n_rows, int n_cols, const NormGradient&,
                   bool add, float* dx, const ScaledCopy& copy = {});
void norm_backward(cudaStream_t, Precision, const void* x, int n_rows, int n_cols, const NormGradient&, void* d);
// d_gate_up: times gate and up, ready for products.
void gate_backward(cudaStream_t, Precision, bool relu2, const void* gate_up, ProductScale gate, ProductScale up,
                   const void* d, int n_rows, int n_cols, const NormGradient&, void* d_gate_up);

// value_kernels.cu.
// qkv times q, k and v, its heads rotated by `turn` (1, or -1 back), in place. cos, sin [n_positions, n_pairs].
void scale_and_rotate(cudaStream_t, Precision, void* qkv, const HeadsShape&, const float* cos, const float* sin,
                      int turn, ProductScale q, ProductScale k, ProductScale v);
void scale_add(cudaStream_t, Precision, const ProductSum&, int n_rows, int n_cols);
// out = x times scale.
void scale_rows(cudaStream_t, Precision, const float* x, ProductScale, int n_rows, int n_cols, void* out);
void convert(cudaStream_t, Precision, const float* x, int64_t n, void* out);
void convert_back(cudaStream_t, Precision, const void* x, int64_t n, float* out);
void embed(cudaStream_t, const float* table, const int32_t* ids, int n_rows, int n_cols, float* out);

// The tokens of each id, to add up gradients of an embedding in order: pieces of at most kPieceTokens of
// `order`; an id of several pieces has its sums in `partial` first.
constexpr int kPieceTokens = 64;
struct EmbeddingPiece {
  int32_t id = 0, begin = 0, end = 0;
  int32_t partial = -1;  // row of `partial`; -1: straight to the table
};
struct EmbeddingSum {
  int32_t id = 0, first = 0, n = 0;  // rows of `partial`
};
void embed_backward(cudaStream_t, const float* dx, int n_cols, const int32_t* order, const EmbeddingPiece* pieces,
                    int n_pieces, const EmbeddingSum* sums, int n_sums, float* partial, float* dtable);

// loss_kernels.cu. losses [n_rows]: -log softmax(logits)[target], 0 where the target is negative. With factor >= 0 the
// logits become the gradients of factor * loss.
void cross_entropy(cudaStream_t, Precision, void* logits, int n_rows, int n_cols, const int32_t* targets, float factor,
                   bool backward, float* losses);
// *total += the sum of x.
void add_up(cudaStream_t, const float* x, int64_t n, double* total);
// *total = the sum of squares; scratch has kSquareParts values.
constexpr int kSquareParts = 1024;
void sum_squares(cudaStream_t, const float* x, int64_t n, double* scratch, double* total);

// weight_kernels.cu.
// alpha[0] = max(mean |w|, 1e-5) by way of its reciprocal, alpha[1] = 1 / alpha[0]; codes [n]. Not enabled: the weights
// themselves; lambda below 1: mixed, both with an alpha of 1. scratch has kMeanParts values.
constexpr int kMeanParts = 1024;
void quantize_weight(cudaStream_t, Precision, const float* w, int64_t n, QuantizeRule, double* scratch, void* codes,
                     float* alpha);
// counts[0] += codes that differ from `last`, counts[1] += zeros; last = codes + 1.
void count_codes(cudaStream_t, Precision, const void* codes, int64_t n, uint8_t* last, unsigned long long* counts);

struct AdamwStep {
  float factor = 1, beta1 = 0, beta2 = 0, eps = 0, lr_decay = 0, rate = 0, root = 0;
};
// decays: a byte for each kDecayGroup values.
constexpr int kDecayGroup = 16;
void adamw(cudaStream_t, const AdamwStep&, int64_t n, const uint8_t* decays, const float* g, float* m, float* v,
           float* p);
void sgd(cudaStream_t, float factor, float momentum, float decay, float lr, int64_t n, const uint8_t* decays,
         const float* g, float* m, float* p);
void move_average(cudaStream_t, float keep, float take, int64_t n, const float* p, float* average);

// attention_*.cu. qkv and d_qkv [n_tokens, qkv_cols], out and dout [n_tokens, q_cols]; lse and sums
// [n_heads, n_tokens]. Causal, scale 1 / sqrt(head_dim).
void attention(cudaStream_t, Precision, const void* qkv, const HeadsShape&, void* out, float* lse);
// sums: scratch.
void attention_backward(cudaStream_t, Precision, const void* qkv, const void* out, const float* lse, const void* dout,
                        const HeadsShape&, float* sums, void* d_qkv);
// On tensor cores, of bf16 and head_dim 64 or 128; all others go through plain loops.
inline bool has_tiles(Precision precision, int head_dim) {
  return precision == Precision::kBf16 && (head_dim == 64 || head_dim == 128);
}
void attention_tiles(cudaStream_t, const void* qkv, const HeadsShape&, void* out, float* lse);
void attention_tiles_backward(cudaStream_t, const void* qkv, const float* lse, const void* dout, const HeadsShape&,
                              const float* sums, void* d_qkv);

}  // namespace bitnet::cuda
