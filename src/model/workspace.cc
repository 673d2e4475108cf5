#include "model/forward.h"

#include "base/checked.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 20;

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
  return layout.used_bytes();
}

Result<Workspace> Workspace::create(const ModelImpl& model, int64_t max_tokens) {
  if (max_tokens < 1 || max_tokens > kMaxTokens) {
    return invalid_argument("{} tokens at once, expected 1 to {}", max_tokens, kMaxTokens);
  }
  Workspace workspace;
  workspace.max_tokens_ = max_tokens;
  BN_ASSIGN_OR_RETURN(workspace.buffer_, model.backend->allocate(workspace.lay_out(model.config)));
  workspace.lay_out(model.config);
  return workspace;
}

RopeTables make_rope_tables(const ModelConfig& config, int64_t n_positions) {
  const int64_t n_pairs = config.rope_dim / 2;
  std::vector<double> frequencies(static_cast<size_t>(n_pairs));
  for (int64_t i = 0; i < n_pairs; ++i) {
    frequencies[size_t(i)] = std::pow(config.rope_theta, -2.0 * double(i) / double(config.rope_dim));
  }
  RopeTables tables;
  tables.cos.reserve(size_t(n_positions * n_pairs));
  tables.sin.reserve(size_t(n_positions * n_pairs));
  for (int64_t position = 0; position < n_positions; ++position) {
    for (const double frequency : frequencies) {
      tables.cos.push_back(float(std::cos(double(position) * frequency)));
      tables.sin.push_back(float(std::sin(double(position) * frequency)));
    }
  }
  tables.view = {tables.cos.data(), tables.sin.data(), n_positions, n_pairs};
  return tables;
}

}  // namespace bitnet
