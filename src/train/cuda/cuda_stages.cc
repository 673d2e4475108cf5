#include "train/cuda/cuda_stages.h"

#include <algorithm>

namespace bitnet {

using CudaStages = Stages<CudaContext>;

void CudaStages::plan(Weight& weight, int64_t n_out, int64_t n_in) {
  weight.n_out = n_out;
  weight.n_in = n_in;
  weight.place = context_.plan_codes(n_out * n_in);
  context_.memory().plan(&weight.alpha, 2 * int64_t{sizeof(float)});
}

void CudaStages::plan(Input& input, int64_t n_cols) {
  input.n_cols = n_cols;
  context_.memory().plan(&input.codes, n_tokens_ * n_cols * cuda::value_bytes(precision()));
  context_.memory().plan(&input.inv_scales, n_tokens_ * int64_t{sizeof(float)});
}

void CudaStages::plan(AttentionState& state) {
  context_.memory().plan(&state.lse, c_.n_heads * n_tokens_ * int64_t{sizeof(float)});
}

CudaStages::R CudaStages::view(Residual& values, int64_t n_cols) {
  if (!context_.memory().taken()) {
    context_.memory().plan(&values.data, n_tokens_ * n_cols * int64_t{sizeof(float)});
  }
  return {values.data, n_tokens_, n_cols};
}

CudaStages::A CudaStages::view(Activations& values, int64_t n_cols) {
  if (!context_.memory().taken()) {
    context_.memory().plan(&values.data, n_tokens_ * n_cols * cuda::value_bytes(precision()));
  }
  return {values.data, n_tokens_, n_cols};
}

void CudaStages::prepare(const float* latent, const float*, int64_t n_out, int64_t n_in, Weight& weight) {
  cuda::quantize_weight(stream(), precision(), latent, n_out * n_in, context_.rule(), context_.sums,
                        context_.codes_at(weight.place), weight.alpha);
}

void CudaStages::multiply(const Input& input, const Weight& first, int64_t n_out, void* out) {
  context_.note(context_.products().multiply({input.codes, input.n_cols},
                                             {context_.codes_at(first.place), input.n_cols, true}, n_tokens_, n_out,
                                             input.n_cols, out));
}

void CudaStages::multiply_backward(const Input& input, const void* d, int64_t n_cols,
                                   std::span<const Weight* const> weights, std::span<const Gradient> dw,
                                   void* d_input) {
  CublasProducts& products = context_.products();
  const int64_t n_in = input.n_cols;
  context_.note(
      products.multiply({d, n_cols}, {context_.codes_at(weights[0]->place), n_in}, n_tokens_, n_in, n_cols, d_input));
  int64_t col = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const void* const from = static_cast<const std::byte*>(d) + col * cuda::value_bytes(precision());
    context_.note(products.add_product({from, n_cols, true}, {input.codes, n_in}, weights[i]->n_out, n_in, n_tokens_,
                                       weights[i]->alpha + 1, dw[i].weight));
    col += weights[i]->n_out;
  }
}

void CudaStages::embed(const float* table, std::span<const int32_t> ids, R x) {
  Result<const void*> sent = context_.ids.send(std::as_bytes(ids), stream());
  if (!sent) return context_.note(std::move(sent.error()));
  cuda::embed(stream(), table, static_cast<const int32_t*>(*sent), n_rows(), int(x.n_cols), x.data);
}

// Tokens by their ids (a counting sort), in pieces that blocks add up.
void CudaStages::embed_backward(std::span<const int32_t> ids, R dx, float* dtable) {
  finish_norm({});
  first_of_.assign(size_t(c_.vocab_size) + 1, 0);
  order_.resize(ids.size());
  pieces_.clear();
  sums_.clear();
  for (const int32_t id : ids) ++first_of_[size_t(id) + 1];
  for (size_t id = 0; id < size_t(c_.vocab_size); ++id) first_of_[id + 1] += first_of_[id];
  int32_t n_partial = 0;
  for (int32_t id = 0; id < int32_t(c_.vocab_size); ++id) {
    const int32_t begin = first_of_[size_t(id)], end = first_of_[size_t(id) + 1];
    const bool several = end - begin > cuda::kPieceTokens;
    if (several) sums_.push_back({id, n_partial, (end - begin + cuda::kPieceTokens - 1) / cuda::kPieceTokens});
    for (int32_t at = begin; at < end; at += cuda::kPieceTokens) {
      pieces_.push_back({id, at, std::min(at + cuda::kPieceTokens, end), several ? n_partial++ : -1});
    }
  }
  for (size_t t = 0; t < ids.size(); ++t) order_[size_t(first_of_[size_t(ids[t])]++)] = int32_t(t);
  Result<const void*> order = context_.order.send(std::as_bytes(std::span(order_)), stream());
  Result<const void*> pieces = context_.pieces.send(std::as_bytes(std::span(pieces_)), stream());
  Result<const void*> sums = context_.piece_sums.send(std::as_bytes(std::span(sums_)), stream());
  for (Result<const void*>* sent : {&order, &pieces, &sums}) {
    if (!*sent) return context_.note(std::move(sent->error()));
  }
  cuda::embed_backward(stream(), dx.data, int(dx.n_cols), static_cast<const int32_t*>(*order),
                       static_cast<const cuda::EmbeddingPiece*>(*pieces), int(pieces_.size()),
                       static_cast<const cuda::EmbeddingSum*>(*sums), int(sums_.size()), context_.partial, dtable);
}

void CudaStages::finish_sum() {
  if (sum_.out != nullptr) cuda::scale_add(stream(), precision(), sum_, n_rows(), int(c_.d_model));
  sum_ = {};
}
void CudaStages::finish_norm(const cuda::ScaledCopy& copy) {
  if (norm_.dx.data == nullptr) return;
  cuda::norm_backward(stream(), precision(), norm_.x.data, norm_.d.data, n_rows(), int(norm_.x.n_cols), norm_.by, true,
                      norm_.dx.data, copy);
  norm_ = {};
}

void CudaStages::norm_quantize(R x, const float* norm, Input& input) {
  finish_norm({});  // a layer that is computed again overwrites what it reads
  if (sum_.out == x.data) {
    cuda::norm_quantize(stream(), precision(), sum_, n_rows(), int(x.n_cols), norm, c_.rms_eps, context_.rule(),
                        input.codes, input.inv_scales);
    sum_ = {};
    return;
  }
  cuda::norm_quantize(stream(), precision(), x.data, n_rows(), int(x.n_cols), norm, c_.rms_eps, context_.rule(),
                      input.codes, input.inv_scales);
}
void CudaStages::sub_norm_quantize(A x, const float* norm, Input& input) {
  cuda::norm_quantize(stream(), precision(), static_cast<const void*>(x.data), n_rows(), int(x.n_cols), norm,
                      c_.rms_eps, context_.rule(), input.codes, input.inv_scales);
}
void CudaStages::norm_quantize_backward(R x, const float* norm, const Input& input, A d, R dx, float* dnorm) {
  norm_ = {x, d, dx, norm_gradient(norm, input, dnorm)};
}
void CudaStages::sub_norm_quantize_backward(A x, const float* norm, const Input& input, A d, float* dnorm) {
  cuda::norm_backward(stream(), precision(), static_cast<const void*>(x.data), n_rows(), int(x.n_cols),
                      norm_gradient(norm, input, dnorm), d.data);
}

void CudaStages::project_heads(const Input& input, const Weight& q, const Weight& k, const Weight& v, A qkv) {
  multiply(input, q, qkv.n_cols, qkv.data);
  cuda::scale_and_rotate(stream(), precision(), qkv.data, context_.heads(), context_.cos, context_.sin, 1,
                         scale(input, q), scale(input, k), scale(input, v));
}
void CudaStages::project_heads_backward(const Input& input, const Weight& q, const Weight& k, const Weight& v, A d,
                                        A d_input, const std::array<Gradient, 3>& dw) {
  cuda::scale_and_rotate(stream(), precision(), d.data, context_.heads(), context_.cos, context_.sin, -1,
                         scale(input, q), scale(input, k), scale(input, v));
  const Weight* const weights[] = {&q, &k, &v};
  multiply_backward(input, d.data, d.n_cols, weights, dw, d_input.data);
}

void CudaStages::attention(A qkv, A out, AttentionState& state) {
  cuda::attention(stream(), precision(), qkv.data, context_.heads(), out.data, state.lse);
}
void CudaStages::attention_backward(A qkv, A out, const AttentionState& state, A dout, A dqkv) {
  cuda::attention_backward(stream(), precision(), qkv.data, out.data, state.lse, dout.data, context_.heads(),
                           context_.output_sums, dqkv.data);
}

void CudaStages::linear_add(const Input& input, const Weight& weight, R x, R out) {
  finish_sum();
  multiply(input, weight, weight.n_out, context_.product);
  sum_ = {context_.product, scale(input, weight), x.data, out.data};
}
void CudaStages::linear_add_backward(const Input& input, const Weight& weight, R dout, A d_input, const Gradient& dw) {
  finish_sum();
  if (norm_.dx.data == dout.data) {
    finish_norm({scale(input, weight), context_.product});
  } else {
    cuda::scale_rows(stream(), precision(), dout.data, scale(input, weight), n_rows(), int(dout.n_cols),
                     context_.product);
  }
  const Weight* const weights[] = {&weight};
  multiply_backward(input, context_.product, dout.n_cols, weights, {&dw, 1}, d_input.data);
}

void CudaStages::gate(const Input& input, const Weight& gate, const Weight&, A gate_up) {
  multiply(input, gate, gate_up.n_cols, gate_up.data);
}
void CudaStages::gate_quantize(const Input& input, const Weight& gate, const Weight& up, A gate_up, const float* norm,
                               Input& out) {
  cuda::gate_quantize(stream(), precision(), relu2(), gate_up.data, scale(input, gate), scale(input, up), n_rows(),
                      int(out.n_cols), norm, c_.rms_eps, context_.rule(), out.codes, out.inv_scales);
}
void CudaStages::gate_quantize_backward(const Input& input, const Weight& gate, const Weight& up, A gate_up,
                                        const float* norm, const Input& out, A d, A d_gate_up, float* dnorm) {
  cuda::gate_backward(stream(), precision(), relu2(), gate_up.data, scale(input, gate), scale(input, up), d.data,
                      n_rows(), int(out.n_cols), norm_gradient(norm, out, dnorm), d_gate_up.data);
}
void CudaStages::gate_backward(const Input& input, const Weight& gate, const Weight& up, A d_gate_up, A d_input,
                               const std::array<Gradient, 2>& dw) {
  const Weight* const weights[] = {&gate, &up};
  multiply_backward(input, d_gate_up.data, d_gate_up.n_cols, weights, dw, d_input.data);
}

// Logits of some tokens at a time, which become their own gradients.
void CudaStages::loss(R x, const float* norm, const float* table, std::span<const int32_t> targets, float factor,
                      bool backward, float* dtable) {
  const int64_t d = x.n_cols, vocab = c_.vocab_size, value = cuda::value_bytes(precision());
  finish_sum();
  Result<const void*> sent = context_.targets.send(std::as_bytes(targets), stream());
  if (!sent) return context_.note(std::move(sent.error()));
  const auto* const goals = static_cast<const int32_t*>(*sent);
  cuda::norm(stream(), precision(), x.data, n_rows(), int(d), norm, c_.rms_eps, context_.head_input);
  cuda::convert(stream(), precision(), table, vocab * d, context_.table);
  CublasProducts& products = context_.products();
  for (int64_t first = 0; first < n_tokens_; first += context_.logits_at_once) {
    const int64_t n = std::min(context_.logits_at_once, n_tokens_ - first);
    const auto part = [&](void* rows) { return static_cast<std::byte*>(rows) + first * d * value; };
    context_.note(
        products.multiply({part(context_.head_input), d}, {context_.table, d, true}, n, vocab, d, context_.logits));
    cuda::cross_entropy(stream(), precision(), context_.logits, int(n), int(vocab), goals + first, factor, backward,
                        context_.losses + first);
    if (!backward) continue;
    context_.note(
        products.multiply({context_.logits, vocab}, {context_.table, d}, n, d, vocab, part(context_.head_gradient)));
    context_.note(products.add_product({context_.logits, vocab, true}, {part(context_.head_input), d}, vocab, d, n,
                                       nullptr, dtable));
  }
  cuda::add_up(stream(), context_.losses, n_tokens_, context_.totals);
}

CudaStages::Loss CudaStages::head_loss(R x, const float* norm, const float* table, std::span<const int32_t> targets) {
  loss(x, norm, table, targets, 0, false, nullptr);
  return {};
}

CudaStages::Loss CudaStages::head_loss_backward(R x, const float* norm, const float* table,
                                                std::span<const int32_t> targets, float factor, R dx, float* dnorm,
                                                float* dtable) {
  loss(x, norm, table, targets, factor, true, dtable);
  const cuda::NormGradient by{norm, c_.rms_eps, nullptr, context_.partial, dnorm};
  cuda::norm_backward(stream(), precision(), x.data, context_.head_gradient, n_rows(), int(x.n_cols), by, false,
                      dx.data);
  return {};
}

}  // namespace bitnet
