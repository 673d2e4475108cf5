#pragma once

#include "kernels/backend.h"
#include "memory/pool_vector.h"
#include "model/config.h"
#include "train/core/parameters.h"
#include "train/core/rows.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

struct GraphOptions {
  int64_t n_sequences = 1;
  int64_t n_positions = 1;  // of a sequence
  // Keep only each layer's input and compute the rest again in the backward pass: less memory, a third more work.
  bool recompute = false;
};

// The model's graph (model/forward.cc) with its gradients, one line an operation, over a flat buffer of parameters.
// Ops is PlainOps<double>, PlainOps<float> or CpuOps. Memory is taken by the first call of each kind and kept. One
// caller at a time.
template <class Ops>
class Graph {
 public:
  using Real = typename Ops::Real;
  using R = Rows<Real>;

  // The config must have passed check_config and have no input norms; everything handed in outlives the graph.
  Graph(const ModelConfig& config, const ParameterLayout& layout, const RopeTable& rope, Ops& ops,
        const GraphOptions& options)
      : c_(config), layout_(layout), rope_(rope), ops_(ops), options_(options), weights_(size_t(config.n_layers)) {}

  // A linear as prepare() left it.
  const typename Ops::Weight& linear(WeightRole role, int64_t layer) const {
    const LayerWeights& w = weights_[size_t(layer)];
    switch (role) {
      case WeightRole::kQ: return w.q;
      case WeightRole::kK: return w.k;
      case WeightRole::kV: return w.v;
      case WeightRole::kO: return w.o;
      case WeightRole::kGate: return w.gate;
      case WeightRole::kUp: return w.up;
      default: return w.down;
    }
  }
  int64_t n_tokens() const { return options_.n_sequences * options_.n_positions; }

  // Quantises the linears' weights. Before the first pass and after every change of the parameters.
  void prepare(const Real* parameters) {
    p_ = parameters;
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) {
      LayerWeights& w = weights_[size_t(layer)];
      const auto linear = [&](WeightRole role, int64_t n_out, int64_t n_in, typename Ops::Weight& weight) {
        const int64_t step = layout_.step_offset(role, layer);
        ops_.prepare(p_ + layout_.offset(role, layer), step < 0 ? nullptr : p_ + step, n_out, n_in, weight);
      };
      linear(WeightRole::kQ, q_cols(), c_.d_model, w.q);
      linear(WeightRole::kK, kv_cols(), c_.d_model, w.k);
      linear(WeightRole::kV, kv_cols(), c_.d_model, w.v);
      linear(WeightRole::kO, c_.d_model, q_cols(), w.o);
      linear(WeightRole::kGate, c_.d_ff, c_.d_model, w.gate);
      linear(WeightRole::kUp, c_.d_ff, c_.d_model, w.up);
      linear(WeightRole::kDown, c_.d_model, c_.d_ff, w.down);
    }
  }

  // The sum of the losses of `targets` (negative: not counted) given `ids`, both [n_sequences, n_positions].
  double evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) {
    layers_.resize(std::max<size_t>(layers_.size(), 1));
    const R x = view(x_, c_.d_model);
    ops_.embed(weight(WeightRole::kTokenEmbedding, -1), ids, x);
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) run_layer(layer, x, layers_[0]);
    ops_.rms_norm(x, weight(WeightRole::kOutputNorm, -1), Real(c_.rms_eps), x);
    return ops_.cross_entropy(x, weight(head_role(), -1), c_.vocab_size, targets, 0, {}, nullptr);
  }

  // The same loss; adds the gradients of factor * loss to `gradients`, laid out as the parameters.
  double backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, Real factor, Real* gradients) {
    g_ = gradients;
    layers_.resize(options_.recompute ? 1 : size_t(c_.n_layers));
    inputs_.resize(size_t(c_.n_layers));
    const R x = view(x_, c_.d_model), h = view(h_, c_.d_model), dx = view(dx_, c_.d_model);
    ops_.embed(weight(WeightRole::kTokenEmbedding, -1), ids, x);
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) {
      std::copy_n(x.data, x.n_values(), view(inputs_[size_t(layer)], c_.d_model).data);
      run_layer(layer, x, state(layer));
    }
    ops_.rms_norm(x, weight(WeightRole::kOutputNorm, -1), Real(c_.rms_eps), h);
    const double loss =
        ops_.cross_entropy(h, weight(head_role(), -1), c_.vocab_size, targets, factor, dx, gradient(head_role(), -1));
    ops_.rms_norm_backward(x, weight(WeightRole::kOutputNorm, -1), Real(c_.rms_eps), dx, dx, false,
                           gradient(WeightRole::kOutputNorm, -1));
    for (int64_t layer = c_.n_layers - 1; layer >= 0; --layer) {
      const R input = view(inputs_[size_t(layer)], c_.d_model);
      if (options_.recompute) {
        std::copy_n(input.data, input.n_values(), x.data);
        run_layer(layer, x, state(layer));
      }
      feed_forward_backward(layer, state(layer), dx);
      attention_backward(layer, input, state(layer), dx);
    }
    ops_.embed_backward(ids, dx, gradient(WeightRole::kTokenEmbedding, -1));
    return loss;
  }

 private:
  using Values = PoolVector<Real>;
  struct LayerWeights {
    typename Ops::Weight q, k, v, o, gate, up, down;
  };
  // What the backward pass of a layer wants of its forward pass, besides the layer's input.
  struct LayerState {
    typename Ops::Input attn_input, o_input, ffn_input, down_input;
    Values q, k, v, attn;  // after RoPE; before the sub-norm
    Values middle;         // the residual stream between attention and feed-forward
    Values gate, up;
  };

  void run_layer(int64_t layer, R x, LayerState& s) {
    const LayerWeights& w = weights_[size_t(layer)];
    const R h = view(h_, c_.d_model), wide = view(wide_, std::max(c_.d_ff, q_cols()));
    const R q = view(s.q, q_cols()), k = view(s.k, kv_cols()), v = view(s.v, kv_cols()), attn = view(s.attn, q_cols());
    ops_.rms_norm(x, weight(WeightRole::kAttnNorm, layer), Real(c_.rms_eps), h);
    ops_.quantize(h, s.attn_input);
    ops_.linear(s.attn_input, w.q, q);
    ops_.linear(s.attn_input, w.k, k);
    ops_.linear(s.attn_input, w.v, v);
    ops_.rope(q, shape(), rope_, 1);
    ops_.rope(k, shape(), rope_, 1);
    ops_.attention(shape(), q, k, v, attn);
    ops_.quantize(sub_norm(WeightRole::kAttnSubNorm, layer, attn, wide), s.o_input);
    ops_.linear(s.o_input, w.o, h);
    ops_.add(h, x);
    std::copy_n(x.data, x.n_values(), view(s.middle, c_.d_model).data);

    const R gate = view(s.gate, c_.d_ff), up = view(s.up, c_.d_ff), gated = view(gated_, c_.d_ff);
    ops_.rms_norm(x, weight(WeightRole::kFfnNorm, layer), Real(c_.rms_eps), h);
    ops_.quantize(h, s.ffn_input);
    ops_.linear(s.ffn_input, w.gate, gate);
    ops_.linear(s.ffn_input, w.up, up);
    ops_.gate(c_.gate_activation, gate, up, gated);
    ops_.quantize(sub_norm(WeightRole::kFfnSubNorm, layer, gated, wide), s.down_input);
    ops_.linear(s.down_input, w.down, h);
    ops_.add(h, x);
  }

  // dx: the gradient of the layer's output, which becomes that of `middle`.
  void feed_forward_backward(int64_t layer, LayerState& s, R dx) {
    const LayerWeights& w = weights_[size_t(layer)];
    const R gate = view(s.gate, c_.d_ff), up = view(s.up, c_.d_ff), gated = view(gated_, c_.d_ff);
    const R wide = view(wide_, c_.d_ff), h = view(h_, c_.d_model);
    backward(WeightRole::kDown, layer, s.down_input, w.down, dx, wide, false);
    if (c_.sub_norms) {
      ops_.gate(c_.gate_activation, gate, up, gated);
      sub_norm_backward(WeightRole::kFfnSubNorm, layer, gated, wide);
    }
    ops_.gate_backward(c_.gate_activation, gate, up, wide, gated, wide);
    backward(WeightRole::kGate, layer, s.ffn_input, w.gate, gated, h, false);
    backward(WeightRole::kUp, layer, s.ffn_input, w.up, wide, h, true);
    ops_.rms_norm_backward(view(s.middle, c_.d_model), weight(WeightRole::kFfnNorm, layer), Real(c_.rms_eps), h, dx,
                           true, gradient(WeightRole::kFfnNorm, layer));
  }

  // dx: the gradient of `middle`, which becomes that of the layer's input.
  void attention_backward(int64_t layer, R input, LayerState& s, R dx) {
    const LayerWeights& w = weights_[size_t(layer)];
    const R q = view(s.q, q_cols()), k = view(s.k, kv_cols()), v = view(s.v, kv_cols()), attn = view(s.attn, q_cols());
    const R dattn = view(wide_, q_cols()), h = view(h_, c_.d_model);
    const R dq = view(dq_, q_cols()), dk = view(dk_, kv_cols()), dv = view(dv_, kv_cols());
    backward(WeightRole::kO, layer, s.o_input, w.o, dx, dattn, false);
    if (c_.sub_norms) sub_norm_backward(WeightRole::kAttnSubNorm, layer, attn, dattn);
    ops_.attention_backward(shape(), q, k, v, attn, dattn, dq, dk, dv);
    ops_.rope(dq, shape(), rope_, -1);
    ops_.rope(dk, shape(), rope_, -1);
    backward(WeightRole::kQ, layer, s.attn_input, w.q, dq, h, false);
    backward(WeightRole::kK, layer, s.attn_input, w.k, dk, h, true);
    backward(WeightRole::kV, layer, s.attn_input, w.v, dv, h, true);
    ops_.rms_norm_backward(input, weight(WeightRole::kAttnNorm, layer), Real(c_.rms_eps), h, dx, true,
                           gradient(WeightRole::kAttnNorm, layer));
  }

  R sub_norm(WeightRole role, int64_t layer, R x, R out) {
    if (!c_.sub_norms) return x;
    out.n_cols = x.n_cols;
    ops_.rms_norm(x, weight(role, layer), Real(c_.rms_eps), out);
    return out;
  }
  void sub_norm_backward(WeightRole role, int64_t layer, R x, R d) {
    ops_.rms_norm_backward(x, weight(role, layer), Real(c_.rms_eps), d, d, false, gradient(role, layer));
  }
  void backward(WeightRole role, int64_t layer, const typename Ops::Input& input, const typename Ops::Weight& w, R dy,
                R dx, bool add) {
    const int64_t step = layout_.step_offset(role, layer);
    ops_.linear_backward(input, w, dy, dx, add, gradient(role, layer), step < 0 ? nullptr : g_ + step);
  }

  R view(Values& values, int64_t n_cols) {
    values.resize(std::max(values.size(), size_t(n_tokens() * n_cols)));
    return {values.data(), n_tokens(), n_cols};
  }
  LayerState& state(int64_t layer) { return layers_[options_.recompute ? 0 : size_t(layer)]; }
  const Real* weight(WeightRole role, int64_t layer) const { return p_ + layout_.offset(role, layer); }
  Real* gradient(WeightRole role, int64_t layer) const { return g_ + layout_.offset(role, layer); }
  WeightRole head_role() const { return c_.tied_head ? WeightRole::kTokenEmbedding : WeightRole::kOutput; }
  int64_t q_cols() const { return c_.n_heads * c_.head_dim; }
  int64_t kv_cols() const { return c_.n_kv_heads * c_.head_dim; }
  AttentionShape shape() const {
    return {options_.n_sequences, options_.n_positions, c_.n_heads, c_.n_kv_heads, c_.head_dim};
  }

  const ModelConfig& c_;
  const ParameterLayout& layout_;
  RopeTable rope_;
  Ops& ops_;
  GraphOptions options_;
  const Real* p_ = nullptr;
  Real* g_ = nullptr;
  std::vector<LayerWeights> weights_;
  std::vector<LayerState> layers_;
  std::vector<Values> inputs_;  // of the layers
  Values x_, h_, dx_, wide_, gated_, dq_, dk_, dv_;
};

}  // namespace bitnet
