#include "model/run_model_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>

namespace bitnet {

TestRun::TestRun(const Model& model, int64_t n_ctx, int n_threads, KvType kv_type) : model_(*model.impl()) {
  constexpr int64_t kMaxChunk = 64;
  const ModelConfig& c = model_.config;
  const int64_t widest = std::max({c.d_model, c.d_ff, c.n_heads * c.head_dim});
  stream_ = *model_.backend->new_stream({n_threads, kMaxChunk, widest, n_ctx, c.n_heads, 1, model_.fused.get()});
  workspace_ = *Workspace::create(model_, kMaxChunk);
  rope_ = *make_rope_tables(*model_.backend, c, n_ctx);
  const DType dtype = kv_type == KvType::kF32 ? DType::kF32 : DType::kF16;
  const size_t bytes = size_t(c.n_kv_heads * n_ctx * c.head_dim) * (kv_type == KvType::kF32 ? 4 : 2);
  for (int64_t layer = 0; layer < c.n_layers; ++layer) {
    memory_.push_back(*model_.backend->allocate(bytes));
    memory_.push_back(*model_.backend->allocate(bytes));
    const size_t n = memory_.size();
    kv_.push_back({memory_[n - 2].data(), memory_[n - 1].data(), dtype, c.n_kv_heads, n_ctx, c.head_dim});
  }
}

std::vector<float> TestRun::append(std::span<const int32_t> ids, int64_t chunk) {
  const int64_t vocab_size = model_.config.vocab_size;
  std::vector<float> logits(ids.size() * size_t(vocab_size));
  const std::atomic<bool> stop{false};
  for (size_t at = 0; at < ids.size(); at += size_t(chunk)) {
    const auto part = ids.subspan(at, std::min(size_t(chunk), ids.size() - at));
    const MatrixView out{logits.data() + at * size_t(vocab_size), int64_t(part.size()), vocab_size};
    const Status status = forward(model_, *stream_, workspace_, kv_, rope_.view, part, n_past_, {out}, stop);
    EXPECT_TRUE(status) << status.error().message;
    n_past_ += int64_t(part.size());
  }
  return logits;
}

std::vector<float> all_logits(const Model& model, std::span<const int32_t> ids, int64_t chunk, int n_threads) {
  return TestRun(model, int64_t(ids.size()), n_threads).append(ids, chunk);
}

double relative_rms(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
    norm += double(b[i]) * double(b[i]);
  }
  return std::sqrt(difference / norm);
}

std::unique_ptr<Model> load_model(const std::string& path, const std::string& device, bool act_quant) {
  LoadOptions options;
  options.device = device;
  options.act_quant = act_quant;
  auto model = Model::load(path, options);
  EXPECT_TRUE(model) << model.error().message;
  return model ? std::make_unique<Model>(*std::move(model)) : nullptr;
}

}  // namespace bitnet
