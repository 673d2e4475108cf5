#pragma once

#include "base/result.h"
#include "kernels/backend.h"
#include "kernels/cpu/dense_product.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/buffer.h"
#include "memory/pool_vector.h"
#include "model/config.h"
#include "train/core/distillation.h"
#include "train/core/linear.h"
#include "train/core/quantization.h"
#include "train/core/rows.h"
#include "train/cpu/attention_gradient.h"
#include "train/cpu/ternary_gradient.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bitnet {

// The operations of PlainOps on the processor's kernels. The forward pass is the CPU back end's own
// (kernels/backend.h), so its activations are those of the finished model bit by bit; gradients are in src/train/cpu.
// Everything is deterministic whatever the number of threads and the instruction set. One caller at a time.
class CpuOps {
 public:
  using Real = float;
  using R = Rows<float>;

  struct Weight {
    const float* latent = nullptr;  // [n_out, n_in]
    const float* step = nullptr;    // where the scale is learned
    int64_t n_out = 0, n_in = 0;
    float alpha = 1;
    PoolVector<uint8_t> codes;       // w + 1, where the products are integers
    std::unique_ptr<Matrix> matrix;  // the back end's
    PoolVector<int16_t> panels;      // of TernaryGradient
    PoolVector<float> effective;     // where they are not, and not the latent values themselves
    const float* values() const { return effective.empty() ? latent : effective.data(); }
    Adapter<float> adapter;
    PoolVector<float> scaled_b;  // the adapter's, rows filled up with zeros to whole lanes
  };
  struct Input {
    PoolVector<int8_t> codes;  // [n_rows, stride]
    PoolVector<float> inv_scales;
    PoolVector<int32_t> sums;
    QuantizedView view;
    PoolVector<float> effective;  // where the products are not integers
    R values;                     // what was quantised, which adapters see, as long as its memory holds it
    int64_t n_rows = 0, n_cols = 0;
  };

  // `second`: of another model that the same operations compute, for the same sequences.
  static Result<std::unique_ptr<CpuOps>> create(const ModelConfig& config, const AttentionShape& shape, int n_threads,
                                                const ModelConfig* second = nullptr);

  ThreadPool& pool() { return stream_->pool(); }
  const Backend& backend() const { return *backend_; }
  const CpuKernels& kernels() const { return kernels_; }
  void set_quantization(const QuantizationOptions& options) { quantization_ = options; }
  // The first failure of an operation since the last call: memory that was not to be had.
  Status take_status();

  void prepare(const float* latent, const float* step, int64_t n_out, int64_t n_in, Weight& weight);
  void freeze(std::span<const uint8_t> codes, float alpha, int64_t n_out, int64_t n_in, Weight& weight);
  void adapt(const Adapter<float>& adapter, Weight& weight);
  void quantize(R x, Input& input);
  void linear(const Input& x, const Weight& weight, R y);
  void linear_backward(const Input& x, const Weight& weight, R dy, R dx, bool add, const WeightGradient<float>& dw);
  void embed(const float* table, std::span<const int32_t> ids, R out);
  void embed_backward(std::span<const int32_t> ids, R dout, float* dtable);
  void rms_norm(R x, const float* weight, float eps, R out);
  void rms_norm_backward(R x, const float* weight, float eps, R dy, R dx, bool add, float* dweight);
  void rope(R x, const AttentionShape& shape, const RopeTable& table, int turn);
  void attention(const AttentionShape& shape, R q, R k, R v, R out);
  void attention_backward(const AttentionShape& shape, R q, R k, R v, R out, R dout, R dq, R dk, R dv);
  void gate(GateActivation activation, R gate, R up, R out);
  void gate_backward(GateActivation activation, R gate, R up, R dout, R dgate, R dup);
  void add(R x, R y);
  double cross_entropy(R x, const float* table, int64_t vocab_size, std::span<const int32_t> targets, float factor,
                       R dx, float* dtable);
  DistillationLoss distilled_cross_entropy(R x, const float* table, int64_t vocab_size,
                                           std::span<const int32_t> targets, const TeacherHead<float>& teacher,
                                           const DistillationOptions& options, float factor, R dx, float* dtable);
  double relations(const AttentionShape& shape, R x, R teacher, std::span<const int32_t> targets, int64_t n_heads,
                   float factor, R dx);

 private:
  CpuOps(std::unique_ptr<Backend> backend, std::unique_ptr<Stream> stream, const CpuKernels& kernels, Buffer cache);
  template <class Fn>
  void for_rows(int64_t n, const Fn& fn) {
    pool().parallel_for(n, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) fn(i);
    });
  }
  float absmean(const float* w, int64_t n);
  void make_codes(Weight& weight);
  void lay_out_codes(Weight& weight);
  void make_effective(Weight& weight);
  void learned_step_backward(const Weight& weight, PoolVector<float>& gradient, float* dstep);
  // out = x w^T for w [n_out, x.n_cols], the sums of docs/numerics.md 6; rows of out are out_stride apart.
  void multiply_rows(const float* w, int64_t n_out, R x, float* out, int64_t out_stride);
  R low_rank(const Input& x, const Weight& weight);
  void adapter_backward(const Input& x, const Weight& weight, R dy, R dx, const WeightGradient<float>& dw);
  // Tokens whose logits are there at once.
  static int64_t logit_rows(int64_t vocab_size, int64_t n_tokens) {
    constexpr int64_t kFloats = int64_t{1} << 22;
    return std::clamp<int64_t>(kFloats / vocab_size, 1, n_tokens);
  }
  // dx = d table, dtable += d^T x unless it is null, of d [n, vocab_size].
  void head_backward(const float* d, int64_t n, int64_t vocab_size, const float* x, const float* table, int64_t n_cols,
                     float* dx, float* dtable);
  double row_divergence(float* own, float own_scale, float* aim, float aim_scale, float* by, int64_t n) const;
  double row_loss(float* logits, int64_t vocab_size, int32_t target, float factor, bool backward) const;

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  const CpuKernels& kernels_;
  Buffer cache_;  // keys and values of one sequence
  DenseProduct dense_;
  TernaryGradient ternary_;
  AttentionGradient attention_;
  QuantizationOptions quantization_;
  std::optional<Error> error_;
  PoolVector<float> partial_, logits_, sines_, gradient_, low_, dlow_, high_;
  PoolVector<float> own_, aim_, by_;  // of student and teacher, and what they differ by
  PoolVector<double> sums_;
};

}  // namespace bitnet
