#pragma once

#include "kernels/backend.h"
#include "memory/pool_vector.h"
#include "model/config.h"
#include "train/core/distillation.h"
#include "train/core/linear.h"
#include "train/core/quantization.h"
#include "train/core/rows.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace bitnet {

// The steps that the graph is made of, each as large as a device can do in one go. This one composes them from the
// operations of PlainOps or CpuOps; a device that fuses them has a specialisation with the same names
// (train/cuda/cuda_stages.h).
//
// Two kinds of memory: the residual stream and its gradient (Residual, R), and all other activations (Activations, A),
// which a device may keep in fewer bits, and in a form that only the stages understand: queries, keys and values
// together, gate and up together, gradients of a linear's input without the scale of its quantisation. Memory is taken
// when it is first looked at. Gradients of weights are added to.
template <class Ops>
class Stages {
 public:
  using Real = typename Ops::Real;
  using R = Rows<Real>;
  using A = Rows<Real>;
  using Residual = PoolVector<Real>;
  using Activations = PoolVector<Real>;
  using Weight = typename Ops::Weight;
  using Input = typename Ops::Input;
  using Gradient = WeightGradient<Real>;
  using Loss = double;  // the sum over the tokens that count
  struct AttentionState {};
  static constexpr bool kAdapters = true;  // freeze() and adapt() are there

  Stages(const ModelConfig& config, const AttentionShape& shape, const RopeTable& rope, Ops& ops)
      : c_(config), shape_(shape), rope_(rope), ops_(ops) {}

  R view(PoolVector<Real>& values, int64_t n_cols) {
    const int64_t n_tokens = shape_.n_tokens();
    values.resize(std::max(values.size(), size_t(n_tokens * n_cols)));
    return {values.data(), n_tokens, n_cols};
  }

  // How the linears of what follows are quantised.
  void set_quantization(const QuantizationOptions& options) { ops_.set_quantization(options); }

  // Linears that share an input follow each other: q, k, v, and gate, up.
  void prepare(const Real* latent, const Real* step, int64_t n_out, int64_t n_in, Weight& weight) {
    ops_.prepare(latent, step, n_out, n_in, weight);
  }
  // Instead: codes w + 1 that stay, which are not wanted afterwards, and the adapter beside them.
  void freeze(std::span<const uint8_t> codes, float alpha, int64_t n_out, int64_t n_in, Weight& weight) {
    ops_.freeze(codes, alpha, n_out, n_in, weight);
  }
  void adapt(const Adapter<Real>& adapter, Weight& weight) { ops_.adapt(adapter, weight); }

  void embed(const Real* table, std::span<const int32_t> ids, R x) { ops_.embed(table, ids, x); }
  // A null gradient here and below: of a weight that is frozen.
  void embed_backward(std::span<const int32_t> ids, R dx, Real* dtable) {
    if (dtable != nullptr) ops_.embed_backward(ids, dx, dtable);
  }

  // input = quantise(norm(x)); the sub-norm may be null: input = quantise(x).
  void norm_quantize(R x, const Real* norm, Input& input) { ops_.quantize(normed(x, norm), input); }
  void sub_norm_quantize(A x, const Real* norm, Input& input) { ops_.quantize(sub_normed(x, norm), input); }
  // What was quantised, computed again for the gradients of adapters; until the next norm of its kind.
  void recall_norm(R x, const Real* norm, Input& input) { input.values = normed(x, norm); }
  void recall_sub_norm(A x, const Real* norm, Input& input) { input.values = sub_normed(x, norm); }
  void recall_gated(A gate_up, const Real* norm, Input& input) { input.values = sub_normed(gated(gate_up), norm); }
  // d: the gradient of `input`. dx is added to.
  void norm_quantize_backward(R x, const Real* norm, const Input&, A d, R dx, Real* dnorm) {
    ops_.rms_norm_backward(x, norm, eps(), d, dx, true, dnorm);
  }
  // d: the gradient of `input`, which becomes that of x.
  void sub_norm_quantize_backward(A x, const Real* norm, const Input&, A d, Real* dnorm) {
    if (norm != nullptr) ops_.rms_norm_backward(x, norm, eps(), d, d, false, dnorm);
  }

  // qkv: queries, keys and values, rotated.
  void project_heads(const Input& input, const Weight& q, const Weight& k, const Weight& v, A qkv) {
    const auto [to_q, to_k, to_v] = heads(qkv);
    ops_.linear(input, q, to_q);
    ops_.linear(input, k, to_k);
    ops_.linear(input, v, to_v);
    ops_.rope(to_q, shape_, rope_, 1);
    ops_.rope(to_k, shape_, rope_, 1);
  }
  // d: the gradient of qkv, which is overwritten; d_input that of `input`.
  void project_heads_backward(const Input& input, const Weight& q, const Weight& k, const Weight& v, A d, A d_input,
                              const std::array<Gradient, 3>& dw) {
    const auto [dq, dk, dv] = heads(d);
    ops_.rope(dq, shape_, rope_, -1);
    ops_.rope(dk, shape_, rope_, -1);
    ops_.linear_backward(input, q, dq, d_input, false, dw[0]);
    ops_.linear_backward(input, k, dk, d_input, true, dw[1]);
    ops_.linear_backward(input, v, dv, d_input, true, dw[2]);
  }

  void attention(A qkv, A out, AttentionState&) {
    const auto [q, k, v] = heads(qkv);
    ops_.attention(shape_, q, k, v, out);
  }
  void attention_backward(A qkv, A out, const AttentionState&, A dout, A dqkv) {
    const auto [q, k, v] = heads(qkv);
    const auto [dq, dk, dv] = heads(dqkv);
    ops_.attention_backward(shape_, q, k, v, out, dout, dq, dk, dv);
  }

  // out = x + linear(input); out may be x.
  void linear_add(const Input& input, const Weight& weight, R x, R out) {
    const R h = view(h_, out.n_cols);
    ops_.linear(input, weight, h);
    if (out.data != x.data) std::copy_n(x.data, x.n_values(), out.data);
    ops_.add(h, out);
  }
  void linear_add_backward(const Input& input, const Weight& weight, R dout, A d_input, const Gradient& dw) {
    ops_.linear_backward(input, weight, dout, d_input, false, dw);
  }

  // gate_up = linear(input) of both; out = quantise(norm(activation(gate) up)), without a norm where it is null.
  void gate(const Input& input, const Weight& gate, const Weight& up, A gate_up) {
    const auto [to_gate, to_up] = halves(gate_up);
    ops_.linear(input, gate, to_gate);
    ops_.linear(input, up, to_up);
  }
  void gate_quantize(const Input&, const Weight&, const Weight&, A gate_up, const Real* norm, Input& out) {
    sub_norm_quantize(gated(gate_up), norm, out);
  }
  // d: the gradient of `out`, which is overwritten; d_gate_up that of gate_up, in the form that gate_backward() wants.
  void gate_quantize_backward(const Input&, const Weight&, const Weight&, A gate_up, const Real* norm, const Input&,
                              A d, A d_gate_up, Real* dnorm) {
    const auto [gate, up] = halves(gate_up);
    const auto [d_gate, d_up] = halves(d_gate_up);
    if (norm != nullptr) {
      ops_.gate(c_.gate_activation, gate, up, d_gate);
      ops_.rms_norm_backward(d_gate, norm, eps(), d, d, false, dnorm);
    }
    ops_.gate_backward(c_.gate_activation, gate, up, d, d_gate, d_up);
  }
  void gate_backward(const Input& input, const Weight& gate, const Weight& up, A d_gate_up, A d_input,
                     const std::array<Gradient, 2>& dw) {
    const auto [d_gate, d_up] = halves(d_gate_up);
    ops_.linear_backward(input, gate, d_gate, d_input, false, dw[0]);
    ops_.linear_backward(input, up, d_up, d_input, true, dw[1]);
  }

  // The last norm, the head and its loss.
  Loss head_loss(R x, const Real* norm, const Real* table, std::span<const int32_t> targets) {
    const R h = view(h_, x.n_cols);
    ops_.rms_norm(x, norm, eps(), h);
    return ops_.cross_entropy(h, table, c_.vocab_size, targets, 0, {}, nullptr);
  }
  // The same; dx becomes the gradient of factor * loss.
  Loss head_loss_backward(R x, const Real* norm, const Real* table, std::span<const int32_t> targets, Real factor, R dx,
                          Real* dnorm, Real* dtable) {
    const R h = view(h_, x.n_cols);
    ops_.rms_norm(x, norm, eps(), h);
    const double loss = ops_.cross_entropy(h, table, c_.vocab_size, targets, factor, dx, dtable);
    ops_.rms_norm_backward(x, norm, eps(), dx, dx, false, dnorm);
    return loss;
  }

  // For a student and its teacher; not on every device.
  void norm(R x, const Real* norm, R out) { ops_.rms_norm(x, norm, eps(), out); }
  DistillationLoss distilled_loss_backward(R x, const Real* norm, const Real* table, std::span<const int32_t> targets,
                                           const TeacherHead<Real>& teacher, const DistillationOptions& options,
                                           Real factor, R dx, Real* dnorm, Real* dtable) {
    const R h = view(h_, x.n_cols);
    ops_.rms_norm(x, norm, eps(), h);
    const DistillationLoss loss =
        ops_.distilled_cross_entropy(h, table, c_.vocab_size, targets, teacher, options, factor, dx, dtable);
    ops_.rms_norm_backward(x, norm, eps(), dx, dx, false, dnorm);
    return loss;
  }
  // d_qkv += the gradient of factor * what it returns.
  double relations_backward(A qkv, const std::array<R, 3>& teacher, std::span<const int32_t> targets,
                            int64_t n_relation_heads, Real factor, A d_qkv) {
    const std::array<R, 3> own = heads(qkv), d = heads(d_qkv);
    double loss = 0;
    for (size_t i = 0; i < own.size(); ++i) {
      loss += ops_.relations(shape_, own[i], teacher[i], targets, n_relation_heads, factor, d[i]);
    }
    return loss;
  }
  // One after the other here, so that each is contiguous.
  std::array<R, 3> heads(A qkv) const {
    const int64_t n = qkv.n_rows, q_cols = shape_.q_cols(), kv_cols = shape_.kv_cols();
    return {R{qkv.data, n, q_cols}, R{qkv.data + n * q_cols, n, kv_cols},
            R{qkv.data + n * (q_cols + kv_cols), n, kv_cols}};
  }

 private:
  R normed(R x, const Real* norm) {
    const R h = view(h_, x.n_cols);
    ops_.rms_norm(x, norm, eps(), h);
    return h;
  }
  R sub_normed(A x, const Real* norm) {
    if (norm == nullptr) return x;
    const R h = view(wide_, x.n_cols);
    ops_.rms_norm(x, norm, eps(), h);
    return h;
  }
  R gated(A gate_up) {
    const auto [gate, up] = halves(gate_up);
    const R out = view(gated_, gate.n_cols);
    ops_.gate(c_.gate_activation, gate, up, out);
    return out;
  }
  Real eps() const { return Real(c_.rms_eps); }
  static std::array<R, 2> halves(A both) {
    const int64_t n_cols = both.n_cols / 2;
    return {R{both.data, both.n_rows, n_cols}, R{both.data + both.n_rows * n_cols, both.n_rows, n_cols}};
  }

  const ModelConfig& c_;
  AttentionShape shape_;
  RopeTable rope_;
  Ops& ops_;
  PoolVector<Real> h_, wide_, gated_;
};

}  // namespace bitnet
