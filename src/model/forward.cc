#include "model/forward.h"

#include "base/copied.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <initializer_list>

namespace bitnet {
namespace {

// What a linear layer multiplies its weight with.
enum class InputKind : uint8_t {
  kInt8,     // per-token int8 codes: ternary weights
  kRounded,  // the same values as floats: a float weight inside a ternary model
  kFloat,    // floats as they are
};
constexpr int kInputKinds = 3;

InputKind input_kind(const ModelImpl& model, const LinearLayer& linear) {
  if (!model.act_quant || !linear.quantize_input) return InputKind::kFloat;
  return linear.weight->ternary() ? InputKind::kInt8 : InputKind::kRounded;
}

struct Projection {
  const LinearLayer* linear;
  MatrixView out;
  MatrixView wanted = {};  // LinearCall::wanted
};

}  // namespace

// One forward() call: the model's graph, one line an operation.
class ForwardPass {
 public:
  ForwardPass(const ModelImpl& model, Stream& stream, Workspace& workspace, const RopeTable& rope, int64_t n_tokens,
              int64_t first_position)
      : model_(model),
        c_(model.config),
        backend_(*model.backend),
        stream_(stream),
        ws_(workspace),
        rope_(rope),
        n_tokens_(n_tokens),
        first_position_(first_position) {}

  Result<MatrixView> embed(std::span<const int32_t> ids) {
    const MatrixView x{ws_.x_, n_tokens_, c_.d_model};
    BN_RETURN_IF_ERROR(backend_.embed(stream_, *model_.token_embedding, ids, x));
    return x;
  }

  // x += o(attention(rope(q(h)), rope(k(h)), v(h))), h = norm(x)
  void attention(const LayerWeights& layer, const KvLayer& kv, MatrixView x) {
    const MatrixView h{ws_.h_, n_tokens_, c_.d_model}, attn{ws_.attn_, n_tokens_, c_.n_heads * c_.head_dim};
    const MatrixView q{ws_.q_, n_tokens_, c_.n_heads * c_.head_dim};
    const MatrixView k{ws_.k_, n_tokens_, c_.n_kv_heads * c_.head_dim}, v{ws_.v_, n_tokens_, k.n_cols};
    backend_.rms_norm(stream_, x, layer.attn_norm.view(), c_.rms_eps, h);
    project({{&layer.q, q}, {&layer.k, k}, {&layer.v, v}}, h);
    backend_.rope(stream_, q, c_.head_dim, rope_, first_position_);
    backend_.rope(stream_, k, c_.head_dim, rope_, first_position_);
    backend_.store_kv(stream_, k, v, kv, first_position_);
    backend_.attention(stream_, q, kv, first_position_, attn);
    if (c_.sub_norms) backend_.rms_norm(stream_, attn, layer.attn_sub_norm.view(), c_.rms_eps, attn);
    project({{&layer.o, h}}, attn);
    backend_.add(stream_, h, x);
  }

  // x += down(act(gate(h)) * up(h)), h = norm(x)
  void feed_forward(const LayerWeights& layer, MatrixView x) {
    const MatrixView h{ws_.h_, n_tokens_, c_.d_model};
    const MatrixView gate{ws_.gate_, n_tokens_, c_.d_ff}, up{ws_.up_, n_tokens_, c_.d_ff};
    backend_.rms_norm(stream_, x, layer.ffn_norm.view(), c_.rms_eps, h);
    if (model_.sparse_ffn && n_tokens_ <= kFewTokens) {
      project({{&layer.gate, gate}}, h);
      impose_on_gates(layer, gate);
      project({{&layer.up, up, gate}}, h);
    } else {
      project({{&layer.gate, gate}, {&layer.up, up}}, h);
      impose_on_gates(layer, gate);
    }
    backend_.gate(stream_, c_.gate_activation, gate, up, gate);
    if (c_.sub_norms) backend_.rms_norm(stream_, gate, layer.ffn_sub_norm.view(), c_.rms_eps, gate);
    project({{&layer.down, h}}, gate, &layer);
    backend_.add(stream_, h, x);
  }

  // Logits of the last logits.n_rows tokens; the head sees unquantised activations.
  Status head(MatrixView x, const WantedLogits& wanted) {
    const MatrixView logits = wanted.out;
    const MatrixView last{x.row(n_tokens_ - logits.n_rows), logits.n_rows, c_.d_model};
    const MatrixView h{ws_.h_, logits.n_rows, c_.d_model};
    backend_.rms_norm(stream_, last, model_.output_norm.view(), c_.rms_eps, h);
    if (backend_.host_memory()) return products(h, wanted.n_best, logits);
    for (int64_t row = 0; row < logits.n_rows; row += ws_.logit_rows_) {
      const int64_t n = std::min(ws_.logit_rows_, logits.n_rows - row);
      const MatrixView out{ws_.logits_, n, logits.n_cols};
      BN_RETURN_IF_ERROR(products({h.row(row), n, h.n_cols}, wanted.n_best, out));
      BN_RETURN_IF_ERROR(backend_.fetch(stream_, out.data,
                                        std::as_writable_bytes(std::span(logits.row(row), size_t(n * out.n_cols)))));
    }
    return ok();
  }

 private:
  Status products(MatrixView h, int64_t n_best, MatrixView logits) {
    const Matrix& weight = model_.output ? *model_.output : *model_.token_embedding;
    if (n_best > 0) return backend_.best_logits(stream_, weight, h, n_best, logits);
    BN_RETURN_IF_ERROR(weight.load_rows(stream_.pool()));
    const LinearCall call{&weight, logits};
    backend_.linear(stream_, {&call, 1}, h);
    return ok();
  }

  void impose_on_gates(const LayerWeights& layer, MatrixView gate) {
    if (model_.imposed) model_.imposed->impose_on_gates(gate, &layer - model_.layers.data(), first_position_);
  }

  // Linears that share an input: it is quantised once, and those of a kind run as one call. `imposed`: the layer on
  // whose int8 codes densities are to be imposed.
  void project(std::initializer_list<Projection> projections, MatrixView x, const LayerWeights* imposed = nullptr) {
    if (c_.input_norms) {
      for (const Projection& p : projections) {
        const MatrixView normed{ws_.input_, x.n_rows, x.n_cols};
        backend_.rms_norm(stream_, x, p.linear->input_norm.view(), c_.input_norm_eps, normed);
        const LinearCall call{p.linear->weight.get(), p.out, p.wanted};
        multiply({&call, 1}, input_kind(model_, *p.linear), normed, imposed);
      }
      return;
    }
    for (int kind = 0; kind < kInputKinds; ++kind) {
      LinearCall calls[kMaxProjections];
      size_t n = 0;
      for (const Projection& p : projections) {
        if (input_kind(model_, *p.linear) == InputKind(kind)) calls[n++] = {p.linear->weight.get(), p.out, p.wanted};
      }
      if (n > 0) multiply({calls, n}, InputKind(kind), x, imposed);
    }
    if (model_.lora_rank > 0) add_lora(projections, x);
  }

  // out += b (a x) of the linears that the adapter changes; x as it is before any rounding.
  void add_lora(std::initializer_list<Projection> projections, MatrixView x) {
    LinearCall down[kMaxProjections], up[kMaxProjections];
    MatrixView outs[kMaxProjections];
    size_t n = 0;
    for (const Projection& p : projections) {
      const LoraLayer& lora = p.linear->lora;
      if (!lora.a) continue;
      const int64_t rank = lora.a->n_rows();
      down[n] = {lora.a.get(), {ws_.lora_ + int64_t(n) * x.n_rows * rank, x.n_rows, rank}};
      up[n] = {lora.b.get(), {ws_.input_, x.n_rows, p.out.n_cols}};
      outs[n++] = p.out;
    }
    if (n == 0) return;
    backend_.linear(stream_, {down, n}, x);
    for (size_t i = 0; i < n; ++i) {
      backend_.linear(stream_, {&up[i], 1}, down[i].out);
      backend_.add(stream_, up[i].out, outs[i]);
    }
  }

  void multiply(std::span<const LinearCall> calls, InputKind kind, MatrixView x, const LayerWeights* imposed) {
    if (kind == InputKind::kInt8) {
      QuantizedView quantized = ws_.quantized_;
      quantized.n_rows = x.n_rows;
      quantized.n_cols = x.n_cols;
      quantized.stride = quantized_stride(x.n_cols);
      backend_.quantize(stream_, x, quantized);
      if (model_.imposed && imposed != nullptr) {
        model_.imposed->impose_on_codes(quantized, imposed - model_.layers.data(), first_position_);
      }
      return backend_.linear(stream_, calls, quantized);
    }
    if (kind == InputKind::kRounded) {
      const MatrixView rounded{ws_.input_, x.n_rows, x.n_cols};
      backend_.fake_quantize(stream_, x, rounded);
      return backend_.linear(stream_, calls, rounded);
    }
    backend_.linear(stream_, calls, x);
  }

  const ModelImpl& model_;
  const ModelConfig& c_;
  const Backend& backend_;
  Stream& stream_;
  Workspace& ws_;
  const RopeTable& rope_;
  int64_t n_tokens_, first_position_;
};

namespace {

constexpr uint32_t kMinusInfinity = 0xff800000u;

bool all_finite(const float* values, int64_t n, bool or_minus_infinity) {
  const uint32_t allowed = or_minus_infinity ? kMinusInfinity : 0;
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    bad |= uint32_t((bits & 0x7f800000u) == 0x7f800000u) & uint32_t(bits != allowed);
  }
  return bad == 0;
}

Error not_finite(const ModelImpl& model, int64_t position) {
  return invalid_input("{}: the logits at position {} are not finite: the weights' sizes do not fit together",
                       model.info.path, position);
}

// `partial`: minus infinity stands for a logit that was not computed.
Status check_logits(const ModelImpl& model, Stream& stream, MatrixView logits, bool partial, int64_t first_position) {
  std::atomic<int64_t> bad_row{INT64_MAX};
  stream.pool().parallel_for(logits.n_rows * logits.n_cols, [&](int64_t begin, int64_t end, int) {
    if (all_finite(logits.data + begin, end - begin, partial)) return;
    while (begin < end && all_finite(logits.data + begin, 1, partial)) ++begin;
    int64_t row = begin / logits.n_cols, seen = bad_row.load();
    while (row < seen && !bad_row.compare_exchange_weak(seen, row)) {
    }
  });
  if (bad_row == INT64_MAX) return ok();
  return not_finite(model, first_position + bad_row.load());
}

}  // namespace

Status forward(const ModelImpl& model, Stream& stream, Workspace& workspace, std::span<const KvLayer> kv,
               const RopeTable& rope, std::span<const int32_t> ids, int64_t first_position, const WantedLogits& logits,
               const std::atomic<bool>& stop) {
  const int64_t n_tokens = int64_t(ids.size());
  if (n_tokens == 0) return ok();
  const int64_t first_logits = first_position + n_tokens - logits.out.n_rows;
  if (const SequencePart part{kv, ids, first_position}; model.fused && model.fused->takes({&part, 1})) {
    BN_RETURN_IF_ERROR(model.fused->step(stream, {&part, 1}, rope, logits.n_best, logits.out));
    return check_logits(model, stream, logits.out, logits.n_best > 0, first_logits);
  }
  ForwardPass pass(model, stream, workspace, rope, n_tokens, first_position);
  BN_ASSIGN_OR_RETURN(const MatrixView x, pass.embed(ids));
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    if (stop.load(std::memory_order_relaxed)) return make_error(ErrorCode::kInterrupted, "stopped on request");
    pass.attention(model.layers[layer], kv[layer], x);
    pass.feed_forward(model.layers[layer], x);
  }
  // The rows of the embedding, and keys and values into the cache.
  const ModelConfig& c = model.config;
  count_moved(uint64_t(n_tokens * (c.d_model + 2 * c.n_layers * c.n_kv_heads * c.head_dim)) * sizeof(float));
  if (logits.out.n_rows == 0) return ok();
  BN_RETURN_IF_ERROR(pass.head(x, logits));
  return check_logits(model, stream, logits.out, logits.n_best > 0, first_logits);
}

Result<std::optional<int32_t>> forward_sampled(const ModelImpl& model, Stream& stream, std::span<const KvLayer> kv,
                                               const RopeTable& rope, int32_t id, int64_t position,
                                               const TokenSampling& sampling, uint64_t draw) {
  const SequencePart part{kv, {&id, 1}, position};
  if (!model.fused || !model.fused->samples(part, rope, sampling)) return std::optional<int32_t>();
  BN_ASSIGN_OR_RETURN(const BestToken token, model.fused->step_sampled(stream, part, rope, sampling, draw));
  if (!std::isfinite(token.logit)) return not_finite(model, position);
  return std::optional(token.id);
}

}  // namespace bitnet
