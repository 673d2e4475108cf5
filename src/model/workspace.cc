#include "model/forward.h"

#include "memory/arena.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 20;
constexpr int64_t kMaxLogitRows = 16;

// The steps that forward() repeats, as the arena's plan sees them: a layer's two halves and the head.
constexpr int32_t kAttention = 0, kFeedForward = 1, kHead = 2;

}  // namespace

Result<Workspace> Workspace::create(const ModelImpl& model, int64_t max_tokens) {
  if (max_tokens < 1 || max_tokens > kMaxTokens) {
    return invalid_argument("{} tokens at once, expected 1 to {}", max_tokens, kMaxTokens);
  }
  const ModelConfig& c = model.config;
  const int64_t n = max_tokens, d_q = c.n_heads * c.head_dim, d_kv = c.n_kv_heads * c.head_dim;
  const int64_t widest = std::max({c.d_model, d_q, c.d_ff});
  Workspace w;
  w.max_tokens_ = max_tokens;
  w.logit_rows_ = model.backend->host_memory() ? 0 : std::min(max_tokens, kMaxLogitRows);

  std::vector<Lifetime> arrays;
  std::vector<std::function<void(std::byte*)>> place;
  const auto want = [&]<class T>(T*& array, int64_t n_values, int32_t first_step, int32_t last_step) {
    arrays.push_back({size_t(n_values) * sizeof(T), first_step, last_step});
    place.push_back([&array](std::byte* at) { array = reinterpret_cast<T*>(at); });
  };
  want(w.x_, n * c.d_model, kAttention, kHead);
  want(w.h_, n * c.d_model, kAttention, kHead);
  want(w.q_, n * d_q, kAttention, kAttention);
  want(w.k_, n * d_kv, kAttention, kAttention);
  want(w.v_, n * d_kv, kAttention, kAttention);
  want(w.attn_, n * d_q, kAttention, kAttention);
  want(w.gate_, n * c.d_ff, kFeedForward, kFeedForward);
  want(w.up_, n * c.d_ff, kFeedForward, kFeedForward);
  want(w.input_, n * widest, kAttention, kFeedForward);  // most models never touch it: its pages cost nothing then
  want(w.lora_, kMaxProjections * n * model.lora_rank, kAttention, kFeedForward);
  want(w.quantized_.codes, n * quantized_stride(widest), kAttention, kHead);
  want(w.quantized_.inv_scales, n, kAttention, kFeedForward);
  want(w.quantized_.sums, n, kAttention, kFeedForward);
  want(w.logits_, w.logit_rows_ * c.vocab_size, kHead, kHead);
  const ArenaPlan plan = plan_arena(arrays);
  BN_ASSIGN_OR_RETURN(w.buffer_, model.backend->allocate(plan.size_bytes));
  for (size_t i = 0; i < place.size(); ++i) place[i](w.buffer_.data() + plan.offsets[i]);
  return w;
}

Result<RopeTables> make_rope_tables(const Backend& backend, const ModelConfig& config, int64_t n_positions) {
  const int64_t n_pairs = config.rope_dim / 2;
  std::vector<double> frequencies(static_cast<size_t>(n_pairs));
  for (int64_t i = 0; i < n_pairs; ++i) {
    frequencies[size_t(i)] = std::pow(config.rope_theta, -2.0 * double(i) / double(config.rope_dim));
  }
  const size_t n = size_t(n_positions * n_pairs);
  std::vector<float> angles(2 * n);  // cosines, then sines
  for (size_t i = 0; i < n; ++i) {
    const double angle = double(i / size_t(n_pairs)) * frequencies[i % size_t(n_pairs)];
    angles[i] = float(std::cos(angle));
    angles[n + i] = float(std::sin(angle));
  }
  RopeTables tables;
  BN_ASSIGN_OR_RETURN(tables.memory, backend.allocate(angles.size() * sizeof(float)));
  BN_RETURN_IF_ERROR(backend.upload(std::as_bytes(std::span(angles)), tables.memory.data()));
  const float* const cos = tables.memory.as<float>();
  tables.view = {cos, cos + n, n_positions, n_pairs};
  return tables;
}

}  // namespace bitnet
