#pragma once

#include "base/result.h"
#include "kernels/backend.h"
#include "model/config.h"
#include "train/core/distillation.h"
#include "train/core/parameters.h"
#include "train/core/quantization.h"
#include "train/core/rows.h"
#include "train/core/stages.h"

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace bitnet {

struct GraphOptions {
  int64_t n_sequences = 1;
  int64_t n_positions = 1;  // of a sequence
  // Keep only each layer's input and compute the rest again in the backward pass: less memory, a third more work.
  bool recompute = false;
};

inline AttentionShape attention_shape(const ModelConfig& c, const GraphOptions& options) {
  return {options.n_sequences, options.n_positions, c.n_heads, c.n_kv_heads, c.head_dim};
}

// The model's graph (model/forward.cc) with its gradients, one line a stage (stages.h), over a flat buffer of
// parameters. Ops is PlainOps<double>, PlainOps<float>, CpuOps or CudaContext. Memory is taken by the first call of
// each kind, or by reserve(), and kept. One caller at a time.
template <class Ops>
class Graph {
 public:
  using S = Stages<Ops>;
  using Real = typename S::Real;
  using R = typename S::R;
  using A = typename S::A;
  using Loss = typename S::Loss;

  // The config must have passed check_config and have no input norms; everything handed in outlives the graph.
  Graph(const ModelConfig& config, const ParameterLayout& layout, const RopeTable& rope, Ops& ops,
        const GraphOptions& options)
      : c_(config),
        layout_(layout),
        options_(options),
        stages_(config, attention_shape(config, options), rope, ops),
        weights_(size_t(config.n_layers)),
        layers_(options.recompute ? 1 : size_t(config.n_layers)),
        inputs_(size_t(config.n_layers)) {}

  // A linear as prepare() left it.
  const typename S::Weight& linear(WeightRole role, int64_t layer) const {
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

  // Looks at all memory of a backward pass, so that it is taken now.
  void reserve() {
    for_linears([&](WeightRole, int64_t, int64_t n_out, int64_t n_in, typename S::Weight& weight) {
      stages_.plan(weight, n_out, n_in);
    });
    for (LayerState& s : layers_) {
      stages_.plan(s.attn_input, c_.d_model);
      stages_.plan(s.o_input, q_cols());
      stages_.plan(s.ffn_input, c_.d_model);
      stages_.plan(s.down_input, c_.d_ff);
      stages_.plan(s.attention);
      (void)stages_.view(s.qkv, qkv_cols());
      (void)stages_.view(s.attn, q_cols());
      (void)stages_.view(s.middle, c_.d_model);
      (void)stages_.view(s.gate_up, 2 * c_.d_ff);
    }
    for (auto& input : inputs_) (void)stages_.view(input, c_.d_model);
    (void)stages_.view(x_, c_.d_model);
    (void)stages_.view(dx_, c_.d_model);
    (void)stages_.view(d_h_, c_.d_model);
    (void)stages_.view(d_wide_, std::max(c_.d_ff, q_cols()));
    (void)stages_.view(d_wider_, std::max(2 * c_.d_ff, qkv_cols()));
  }

  // Takes the model's weights for good: tables and norms at `values`, laid out by `layout`, which both outlive the
  // graph, and each linear's codes from linear_of(role, layer), a Result with `codes` and `alpha`. The graph's own
  // layout is one of adapters then, which count `scale` times. Before anything else.
  template <class LinearOf>
  Status freeze(const ParameterLayout& layout, const Real* values, Real scale, const LinearOf& linear_of) {
    frozen_layout_ = &layout;
    frozen_ = values;
    lora_scale_ = scale;
    Status status = ok();
    for_linears([&](WeightRole role, int64_t layer, int64_t n_out, int64_t n_in, typename S::Weight& weight) {
      if (!status) return;
      auto linear = linear_of(role, layer);
      if (!linear) {
        status = std::move(linear.error());
        return;
      }
      stages_.freeze(linear->codes, linear->alpha, n_out, n_in, weight);
    });
    return status;
  }
  // Whether this linear has an adapter.
  bool adapts(WeightRole role) const { return layout_.lora_a_offset(role, 0) >= 0; }

  // Quantises the linears' weights, each layer's as `quantization` says for it, which also holds for the passes that
  // follow; or takes their adapters. Before the first pass and after every change of the parameters.
  void prepare(const Real* parameters, LayerQuantization quantization = {}) {
    p_ = parameters;
    quantization_ = std::move(quantization);
    if constexpr (S::kAdapters) {
      if (frozen_ != nullptr) return take_adapters();
    }
    for_linears([&](WeightRole role, int64_t layer, int64_t n_out, int64_t n_in, typename S::Weight& weight) {
      stages_.set_quantization(quantization_.of(layer));
      const int64_t step = layout_.step_offset(role, layer);
      stages_.prepare(p_ + layout_.offset(role, layer), step < 0 ? nullptr : p_ + step, n_out, n_in, weight);
    });
  }

  // The same for linears that were quantised elsewhere: `parameters` have all that is no linear.
  void serve(const Real* parameters, LayerQuantization quantization) {
    p_ = parameters;
    quantization_ = std::move(quantization);
  }
  // fn(layer) when backpropagate() is through a layer: the gradients of its linears, and of all layers above, are
  // complete.
  void on_layer(std::function<void(int64_t)> fn) { on_layer_ = std::move(fn); }

  // The sum of the losses of `targets` (negative: not counted) given `ids`, both [n_sequences, n_positions].
  Loss evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) {
    const R x = stages_.view(x_, c_.d_model);
    stages_.embed(weight(WeightRole::kTokenEmbedding, -1), ids, x);
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) run_layer(layer, x, layers_[0], x);
    return stages_.head_loss(x, weight(WeightRole::kOutputNorm, -1), weight(head_role(), -1), targets);
  }

  // The same loss; adds the gradients of factor * loss to `gradients`, laid out as the parameters.
  Loss backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, Real factor, Real* gradients) {
    run_all(ids, gradients);
    const Loss loss = stages_.head_loss_backward(
        stages_.view(x_, c_.d_model), weight(WeightRole::kOutputNorm, -1), weight(head_role(), -1), targets, factor,
        stages_.view(dx_, c_.d_model), gradient(WeightRole::kOutputNorm, -1), gradient(head_role(), -1));
    all_backward(ids, [](int64_t, A, A) {});
    return loss;
  }

  // What a student learns from this graph's model; valid until the next call.
  struct Lesson {
    TeacherHead<Real> head;
    std::array<R, 3> heads;  // queries, keys and values of one layer, rotated
  };
  // `layer`: counted from the last one, which is 1.
  Lesson teach(std::span<const int32_t> ids, int64_t layer) {
    const R x = stages_.view(x_, c_.d_model), last = stages_.view(dx_, c_.d_model);
    stages_.embed(weight(WeightRole::kTokenEmbedding, -1), ids, x);
    for (int64_t i = 0; i < c_.n_layers; ++i) run_layer(i, x, i == c_.n_layers - layer ? shown_ : layers_[0], x);
    stages_.norm(x, weight(WeightRole::kOutputNorm, -1), last);
    return {{last, weight(head_role(), -1)}, stages_.heads(stages_.view(shown_.qkv, qkv_cols()))};
  }
  // As backpropagate() with the loss of a student; factor * total() of it has the gradients.
  DistillationLoss distill(std::span<const int32_t> ids, std::span<const int32_t> targets, const Lesson& lesson,
                           const DistillationOptions& options, Real factor, Real* gradients) {
    run_all(ids, gradients);
    DistillationLoss loss = stages_.distilled_loss_backward(
        stages_.view(x_, c_.d_model), weight(WeightRole::kOutputNorm, -1), weight(head_role(), -1), targets,
        lesson.head, options, factor, stages_.view(dx_, c_.d_model), gradient(WeightRole::kOutputNorm, -1),
        gradient(head_role(), -1));
    all_backward(ids, [&](int64_t layer, A qkv, A d_qkv) {
      if (options.attention == 0 || layer != c_.n_layers - options.layer) return;
      loss.attention = stages_.relations_backward(qkv, lesson.heads, targets, options.relation_heads,
                                                  Real(options.attention) * factor, d_qkv);
    });
    return loss;
  }

 private:
  void take_adapters() {
    for_linears([&](WeightRole role, int64_t layer, int64_t, int64_t, typename S::Weight& weight) {
      if (!adapts(role)) return;
      stages_.adapt({p_ + layout_.lora_a_offset(role, layer), p_ + layout_.lora_b_offset(role, layer),
                     layout_.lora_rank(), lora_scale_},
                    weight);
    });
  }

  struct LayerWeights {
    typename S::Weight q, k, v, o, gate, up, down;
  };
  // What the backward pass of a layer wants of its forward pass, besides the layer's input.
  struct LayerState {
    typename S::Input attn_input, o_input, ffn_input, down_input;
    typename S::AttentionState attention;
    typename S::Activations qkv, attn;  // after RoPE; before the sub-norm
    typename S::Residual middle;        // the residual stream between attention and feed-forward
    typename S::Activations gate_up;
  };

  // A forward pass that keeps what the backward pass wants.
  void run_all(std::span<const int32_t> ids, Real* gradients) {
    g_ = gradients;
    const R x = stages_.view(x_, c_.d_model);
    stages_.embed(weight(WeightRole::kTokenEmbedding, -1), ids, input(0));
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) {
      run_layer(layer, input(layer), state(layer), layer + 1 < c_.n_layers ? input(layer + 1) : x);
    }
  }
  // From the gradient of the last layer's output in dx_. at_heads(layer, qkv, d_qkv) may add to d_qkv.
  template <class Fn>
  void all_backward(std::span<const int32_t> ids, const Fn& at_heads) {
    const R x = stages_.view(x_, c_.d_model), dx = stages_.view(dx_, c_.d_model);
    for (int64_t layer = c_.n_layers - 1; layer >= 0; --layer) {
      if (options_.recompute) run_layer(layer, input(layer), state(layer), x);
      stages_.set_quantization(quantization_.of(layer));
      feed_forward_backward(layer, state(layer), dx);
      attention_backward(layer, input(layer), state(layer), dx, at_heads);
      if (on_layer_) on_layer_(layer);
    }
    stages_.embed_backward(ids, dx, gradient(WeightRole::kTokenEmbedding, -1));
  }

  // out may be x.
  void run_layer(int64_t layer, R x, LayerState& s, R out) {
    stages_.set_quantization(quantization_.of(layer));
    const LayerWeights& w = weights_[size_t(layer)];
    const A qkv = stages_.view(s.qkv, qkv_cols()), attn = stages_.view(s.attn, q_cols());
    const R middle = stages_.view(s.middle, c_.d_model);
    stages_.norm_quantize(x, weight(WeightRole::kAttnNorm, layer), s.attn_input);
    stages_.project_heads(s.attn_input, w.q, w.k, w.v, qkv);
    stages_.attention(qkv, attn, s.attention);
    stages_.sub_norm_quantize(attn, sub_norm(WeightRole::kAttnSubNorm, layer), s.o_input);
    stages_.linear_add(s.o_input, w.o, x, middle);

    const A gate_up = stages_.view(s.gate_up, 2 * c_.d_ff);
    stages_.norm_quantize(middle, weight(WeightRole::kFfnNorm, layer), s.ffn_input);
    stages_.gate(s.ffn_input, w.gate, w.up, gate_up);
    stages_.gate_quantize(s.ffn_input, w.gate, w.up, gate_up, sub_norm(WeightRole::kFfnSubNorm, layer), s.down_input);
    stages_.linear_add(s.down_input, w.down, middle, out);
  }

  // dx: the gradient of the layer's output, which becomes that of `middle`.
  void feed_forward_backward(int64_t layer, LayerState& s, R dx) {
    const LayerWeights& w = weights_[size_t(layer)];
    const A d_h = stages_.view(d_h_, c_.d_model), d_wide = stages_.view(d_wide_, c_.d_ff);
    const A gate_up = stages_.view(s.gate_up, 2 * c_.d_ff), d_gate_up = stages_.view(d_wider_, 2 * c_.d_ff);
    if constexpr (S::kAdapters) {
      const bool shared = adapts(WeightRole::kGate) || adapts(WeightRole::kUp);
      if (adapts(WeightRole::kDown))
        stages_.recall_gated(gate_up, sub_norm(WeightRole::kFfnSubNorm, layer), s.down_input);
      if (shared)
        stages_.recall_norm(stages_.view(s.middle, c_.d_model), weight(WeightRole::kFfnNorm, layer), s.ffn_input);
    }
    stages_.linear_add_backward(s.down_input, w.down, dx, d_wide, linear_gradient(WeightRole::kDown, layer));
    stages_.gate_quantize_backward(s.ffn_input, w.gate, w.up, gate_up, sub_norm(WeightRole::kFfnSubNorm, layer),
                                   s.down_input, d_wide, d_gate_up, sub_norm_gradient(WeightRole::kFfnSubNorm, layer));
    stages_.gate_backward(s.ffn_input, w.gate, w.up, d_gate_up, d_h,
                          {linear_gradient(WeightRole::kGate, layer), linear_gradient(WeightRole::kUp, layer)});
    stages_.norm_quantize_backward(stages_.view(s.middle, c_.d_model), weight(WeightRole::kFfnNorm, layer), s.ffn_input,
                                   d_h, dx, gradient(WeightRole::kFfnNorm, layer));
  }

  // dx: the gradient of `middle`, which becomes that of the layer's input.
  template <class Fn>
  void attention_backward(int64_t layer, R x, LayerState& s, R dx, const Fn& at_heads) {
    const LayerWeights& w = weights_[size_t(layer)];
    const A d_h = stages_.view(d_h_, c_.d_model), d_attn = stages_.view(d_wide_, q_cols());
    const A qkv = stages_.view(s.qkv, qkv_cols()), d_qkv = stages_.view(d_wider_, qkv_cols());
    const A attn = stages_.view(s.attn, q_cols());
    if constexpr (S::kAdapters) {
      const bool shared = adapts(WeightRole::kQ) || adapts(WeightRole::kK) || adapts(WeightRole::kV);
      if (adapts(WeightRole::kO)) stages_.recall_sub_norm(attn, sub_norm(WeightRole::kAttnSubNorm, layer), s.o_input);
      if (shared) stages_.recall_norm(x, weight(WeightRole::kAttnNorm, layer), s.attn_input);
    }
    stages_.linear_add_backward(s.o_input, w.o, dx, d_attn, linear_gradient(WeightRole::kO, layer));
    stages_.sub_norm_quantize_backward(attn, sub_norm(WeightRole::kAttnSubNorm, layer), s.o_input, d_attn,
                                       sub_norm_gradient(WeightRole::kAttnSubNorm, layer));
    stages_.attention_backward(qkv, attn, s.attention, d_attn, d_qkv);
    at_heads(layer, qkv, d_qkv);
    stages_.project_heads_backward(s.attn_input, w.q, w.k, w.v, d_qkv, d_h,
                                   {linear_gradient(WeightRole::kQ, layer), linear_gradient(WeightRole::kK, layer),
                                    linear_gradient(WeightRole::kV, layer)});
    stages_.norm_quantize_backward(x, weight(WeightRole::kAttnNorm, layer), s.attn_input, d_h, dx,
                                   gradient(WeightRole::kAttnNorm, layer));
  }

  // fn(role, layer, n_out, n_in, weight) of each linear, those that share an input one after the other.
  template <class Fn>
  void for_linears(const Fn& fn) {
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) {
      LayerWeights& w = weights_[size_t(layer)];
      fn(WeightRole::kQ, layer, q_cols(), c_.d_model, w.q);
      fn(WeightRole::kK, layer, kv_cols(), c_.d_model, w.k);
      fn(WeightRole::kV, layer, kv_cols(), c_.d_model, w.v);
      fn(WeightRole::kO, layer, c_.d_model, q_cols(), w.o);
      fn(WeightRole::kGate, layer, c_.d_ff, c_.d_model, w.gate);
      fn(WeightRole::kUp, layer, c_.d_ff, c_.d_model, w.up);
      fn(WeightRole::kDown, layer, c_.d_model, c_.d_ff, w.down);
    }
  }
  R input(int64_t layer) { return stages_.view(inputs_[size_t(layer)], c_.d_model); }
  LayerState& state(int64_t layer) { return layers_[options_.recompute ? 0 : size_t(layer)]; }
  const Real* weight(WeightRole role, int64_t layer) const {
    return frozen_ != nullptr ? frozen_ + frozen_layout_->offset(role, layer) : p_ + layout_.offset(role, layer);
  }
  const Real* sub_norm(WeightRole role, int64_t layer) const { return c_.sub_norms ? weight(role, layer) : nullptr; }
  Real* gradient(WeightRole role, int64_t layer) const {
    return frozen_ != nullptr ? nullptr : g_ + layout_.offset(role, layer);
  }
  Real* sub_norm_gradient(WeightRole role, int64_t layer) const {
    return c_.sub_norms ? gradient(role, layer) : nullptr;
  }
  WeightGradient<Real> linear_gradient(WeightRole role, int64_t layer) const {
    const auto at = [this](int64_t offset) { return offset < 0 ? nullptr : g_ + offset; };
    return {gradient(role, layer), at(layout_.step_offset(role, layer)), at(layout_.lora_a_offset(role, layer)),
            at(layout_.lora_b_offset(role, layer))};
  }
  WeightRole head_role() const { return c_.tied_head ? WeightRole::kTokenEmbedding : WeightRole::kOutput; }
  int64_t q_cols() const { return c_.n_heads * c_.head_dim; }
  int64_t kv_cols() const { return c_.n_kv_heads * c_.head_dim; }
  int64_t qkv_cols() const { return q_cols() + 2 * kv_cols(); }

  const ModelConfig& c_;
  const ParameterLayout& layout_;
  GraphOptions options_;
  S stages_;
  const ParameterLayout* frozen_layout_ = nullptr;
  const Real* frozen_ = nullptr;  // tables and norms, where they are not among the parameters
  Real lora_scale_ = 1;
  const Real* p_ = nullptr;
  Real* g_ = nullptr;
  std::function<void(int64_t)> on_layer_;
  LayerQuantization quantization_;
  std::vector<LayerWeights> weights_;
  std::vector<LayerState> layers_;
  LayerState shown_;                          // of the layer that teach() shows
  std::vector<typename S::Residual> inputs_;  // of the layers
  typename S::Residual x_, dx_;
  typename S::Activations d_h_, d_wide_, d_wider_;
};

}  // namespace bitnet
