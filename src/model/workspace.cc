#include "model/forward.h"

#include "base/checked.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 20;
constexpr int64_t kMaxLogitRows = 16;

// Places one array after the other, each on cache lines of its own; without memory it only counts.
class Layout {
 public:
  explicit Layout(std::byte* base) : base_(base) {}
  template <class T>
  void place(T*& array, int64_t n) {
    array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_bytes_);
    used_bytes_ += size_t(round_up(n * int64_t(sizeof(T)), 64));
  }
  size_t used_bytes() const { return used_bytes_; }

 private:
  std::byte* base_;
  size_t used_bytes_ = 0;
};

}  // namespace

size_t Workspace::lay_out(const ModelConfig& c) {
  const int64_t n = max_tokens_, d_q = c.n_heads * c.head_dim, d_kv = c.n_kv_heads * c.head_dim;
  const int64_t widest = std::max({c.d_model, d_q, c.d_ff});
  Layout layout(buffer_.data());
  layout.place(x_, n * c.d_model);
  layout.place(h_, n * c.d_model);
  layout.place(q_, n * d_q);
  layout.place(k_, n * d_kv);
  layout.place(v_, n * d_kv);
  layout.place(attn_, n * d_q);
  layout.place(gate_, n * c.d_ff);
  layout.place(up_, n * c.d_ff);
  layout.place(input_, n * widest);  // most models never touch it, and untouched pages cost nothing
  layout.place(quantized_.codes, n * quantized_stride(widest));
  layout.place(quantized_.inv_scales, n);
  layout.place(quantized_.sums, n);
  layout.place(logits_, logit_rows_ * c.vocab_size);
  return layout.used_bytes();
}

Result<Workspace> Workspace::create(const ModelImpl& model, int64_t max_tokens) {
  if (max_tokens < 1 || max_tokens > kMaxTokens) {
    return invalid_argument("{} tokens at once, expected 1 to {}", max_tokens, kMaxTokens);
  }
  Workspace workspace;
  workspace.max_tokens_ = max_tokens;
  workspace.logit_rows_ = model.backend->host_memory() ? 0 : std::min(max_tokens, kMaxLogitRows);
  BN_ASSIGN_OR_RETURN(workspace.buffer_, model.backend->allocate(workspace.lay_out(model.config)));
  workspace.lay_out(model.config);
  return workspace;
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
