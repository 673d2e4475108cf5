#pragma once

#include "train/core/stages.h"
#include "train/cuda/cuda_context.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// Values of the context's precision, [n_rows, n_cols].
struct DeviceRows {
  void* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
};

// The stages on a GPU: products by cuBLASLt on codes, everything between two products in one kernel of ours. The
// residual stream and its gradient are floats, other activations of the context's precision; a product and a gradient
// lack their scales until the next kernel looks at them (train_kernels.h). Losses add up on the device, in
// CudaContext::totals[0]. Failures are the context's, see CudaContext::take_status().
template <>
class Stages<CudaContext> {
 public:
  using Real = float;
  using R = Rows<float>;
  using A = DeviceRows;
  struct Residual {
    float* data = nullptr;
  };
  struct Activations {
    void* data = nullptr;
  };
  struct Weight {
    int64_t place = -1;      // of its codes among all
    float* alpha = nullptr;  // and 1 / alpha
    int64_t n_out = 0, n_in = 0;
  };
  struct Input {
    void* codes = nullptr;
    float* inv_scales = nullptr;
    int64_t n_cols = 0;
  };
  struct AttentionState {
    float* lse = nullptr;
  };
  struct Loss {};  // in totals[0]
  static constexpr bool kAdapters = false;
  using Gradient = WeightGradient<float>;

  Stages(const ModelConfig& config, const AttentionShape& shape, const RopeTable&, CudaContext& context)
      : c_(config), n_tokens_(shape.n_tokens()), context_(context) {}

  void plan(Weight& weight, int64_t n_out, int64_t n_in);
  void plan(Input& input, int64_t n_cols);
  void plan(AttentionState& state);
  // Until the context has taken its memory, the wish for it.
  R view(Residual& values, int64_t n_cols);
  A view(Activations& values, int64_t n_cols);

  void set_quantization(const QuantizationOptions& options) { context_.set_quantization(options); }
  void prepare(const float* latent, const float* step, int64_t n_out, int64_t n_in, Weight& weight);
  void embed(const float* table, std::span<const int32_t> ids, R x);
  void embed_backward(std::span<const int32_t> ids, R dx, float* dtable);
  void norm_quantize(R x, const float* norm, Input& input);
  void sub_norm_quantize(A x, const float* norm, Input& input);
  void norm_quantize_backward(R x, const float* norm, const Input& input, A d, R dx, float* dnorm);
  void sub_norm_quantize_backward(A x, const float* norm, const Input& input, A d, float* dnorm);
  void project_heads(const Input& input, const Weight& q, const Weight& k, const Weight& v, A qkv);
  void project_heads_backward(const Input& input, const Weight& q, const Weight& k, const Weight& v, A d, A d_input,
                              const std::array<Gradient, 3>& dw);
  void attention(A qkv, A out, AttentionState& state);
  void attention_backward(A qkv, A out, const AttentionState& state, A dout, A dqkv);
  void linear_add(const Input& input, const Weight& weight, R x, R out);
  void linear_add_backward(const Input& input, const Weight& weight, R dout, A d_input, const Gradient& dw);
  void gate(const Input& input, const Weight& gate, const Weight& up, A gate_up);
  void gate_quantize(const Input& input, const Weight& gate, const Weight& up, A gate_up, const float* norm,
                     Input& out);
  void gate_quantize_backward(const Input& input, const Weight& gate, const Weight& up, A gate_up, const float* norm,
                              const Input& out, A d, A d_gate_up, float* dnorm);
  void gate_backward(const Input& input, const Weight& gate, const Weight& up, A d_gate_up, A d_input,
                     const std::array<Gradient, 2>& dw);
  Loss head_loss(R x, const float* norm, const float* table, std::span<const int32_t> targets);
  Loss head_loss_backward(R x, const float* norm, const float* table, std::span<const int32_t> targets, float factor,
                          R dx, float* dnorm, float* dtable);

 private:
  // out [n_tokens, n_out] = input's codes with those of weights that follow each other.
  void multiply(const Input& input, const Weight& first, int64_t n_out, void* out);
  // d_input = d with the codes, dw += d^T with the input's codes, of `weights` that follow each other; d has n_cols.
  void multiply_backward(const Input& input, const void* d, int64_t n_cols, std::span<const Weight* const> weights,
                         std::span<const Gradient> dw, void* d_input);
  void loss(R x, const float* norm, const float* table, std::span<const int32_t> targets, float factor, bool backward,
            float* dtable);
  cuda::ProductScale scale(const Input& input, const Weight& weight) const { return {input.inv_scales, weight.alpha}; }
  cuda::NormGradient norm_gradient(const float* norm, const Input& input, float* dnorm) const {
    return {norm, c_.rms_eps, input.inv_scales, context_.partial, dnorm};
  }
  bool relu2() const { return c_.gate_activation == GateActivation::kRelu2; }
  int n_rows() const { return int(n_tokens_); }
  cuda::Precision precision() const { return context_.precision(); }
  cudaStream_t stream() const { return context_.stream(); }

  const ModelConfig& c_;
  int64_t n_tokens_;
  CudaContext& context_;
  // What the stage before has left to the next one, which does it on the way where it looks at the same rows: a sum of
  // the residual stream, and the gradient of a norm.
  struct PendingNorm {
    R x;
    A d;
    R dx;
    cuda::NormGradient by;
  };
  void finish_sum();
  void finish_norm(const cuda::ScaledCopy& copy);
  cuda::ProductSum sum_;  // none where out is null
  PendingNorm norm_;      // none where dx.data is null
  // The tokens of each id, as embed_backward() counts them.
  std::vector<int32_t> first_of_, order_;
  std::vector<cuda::EmbeddingPiece> pieces_;
  std::vector<cuda::EmbeddingSum> sums_;
};

}  // namespace bitnet
