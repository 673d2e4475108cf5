#include "runtime/batch.h"

#include "bitnet/generate.h"
#include "runtime/sampler.h"
#include "runtime/test_gpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

// Every kernel of the fused steps on the smallest shapes that reach it, so that compute-sanitizer's tools, which run a
// kernel a thousand times slower, come to an end: scripts/cuda_suite.sh runs memcheck and racecheck on this suite and
// on the operations'. Bits are compared here too, of few steps; the other suites walk further.
namespace bitnet {
namespace {

constexpr KvType kCaches[] = {KvType::kF16, KvType::kF32, KvType::kQ8_0};

struct Pair {
  explicit Pair(const std::string& name, HeadMode head = HeadMode::kAuto)
      : cpu(load_on(tiny_path(name), "cpu")), gpu(load_on(tiny_path(name), "cuda", head)) {}
  bool loaded() const { return cpu.has_value() && gpu.has_value(); }
  int64_t vocab_size() const { return cpu->info().vocab_size; }
  Result<Model> cpu, gpu;
};

class CudaKernels : public OnGpu {
 protected:
  // Those that are among the n_best of `found`, which may lack others; 0: all.
  static void compare(std::span<const float> want, std::span<const float> found, int64_t n_best) {
    std::vector<float> sorted = copy(want);
    if (n_best > 0) std::nth_element(sorted.begin(), sorted.begin() + n_best - 1, sorted.end(), std::greater<>());
    for (size_t i = 0; i < want.size(); ++i) {
      const bool wanted = n_best == 0 || want[i] >= sorted[size_t(n_best) - 1];
      if (wanted || std::isfinite(found[i])) {
        ASSERT_EQ(found[i], want[i]) << i;
      }
    }
  }
  static void compare_step(Session& a, Session& b, std::span<const int32_t> ids, int64_t n_best) {
    a.want_logits(0);
    b.want_logits(n_best);
    ASSERT_TRUE(a.append(ids));
    ASSERT_TRUE(b.append(ids));
    compare(a.logits(), b.logits(), n_best);
  }
  static void walk(const char* name, KvType kv_type);
};

// The head with its best tokens, a few, and all.
void CudaKernels::walk(const char* name, KvType kv_type) {
  const Pair models(name, HeadMode::kCertified);
  ASSERT_TRUE(models.loaded());
  Session a = new_session(*models.cpu, 8, 1, kv_type, 8), b = new_session(*models.gpu, 8, 1, kv_type, 8);
  const auto ids = random_ids(5, models.vocab_size());
  for (size_t i = 0; i < ids.size(); ++i) compare_step(a, b, {&ids[i], 1}, i < 3 ? 1 : i == 3 ? 5 : 0);
}

TEST_F(CudaKernels, TokensByTheKernelOfAllLayers) {
  for (const char* name : {"bitnet-packed", "llama-divide"}) {
    for (const KvType kv_type : {KvType::kF16, KvType::kF32}) walk(name, kv_type);
  }
}

// With this cache, or heads of 256.
TEST_F(CudaKernels, TokensByKernelsOfALayer) {
  for (const char* name : {"bitnet-packed", "llama-divide"}) walk(name, KvType::kQ8_0);
  for (const KvType kv_type : {KvType::kF16, KvType::kF32}) walk("llama-wide-heads", kv_type);
}

TEST_F(CudaKernels, ATokenAfterManyPositionsAndAWholeHead) {
  const Pair models("bitnet-packed", HeadMode::kFull);
  ASSERT_TRUE(models.loaded());
  Session a = new_session(*models.cpu, 140, 1, KvType::kQ8_0, 144);
  Session b = new_session(*models.gpu, 140, 1, KvType::kQ8_0, 144);
  const auto ids = random_ids(142, models.vocab_size());
  compare_step(a, b, std::span(ids).first(140), 0);
  compare_step(a, b, {&ids[140], 1}, 1);
  compare_step(a, b, {&ids[141], 1}, 0);
}

TEST_F(CudaKernels, DrawnTokens) {
  for (const HeadMode head : {HeadMode::kCertified, HeadMode::kFull}) {
    const Pair models("bitnet-packed", head);
    ASSERT_TRUE(models.loaded());
    Session a = new_session(*models.cpu, 8, 1, KvType::kQ8_0, 8), b = new_session(*models.gpu, 8, 1, KvType::kQ8_0, 8);
    SamplingOptions options;
    options.top_k = 10;
    Sampler sampler = *Sampler::create(options, models.vocab_size());
    int32_t id = 5;
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(a.append({&id, 1}));
      const auto found = b.append_sampled(id, options, sampler.n_draws());
      id = *sampler.sample(a.logits(), {});
      ASSERT_TRUE(found.has_value() && found->has_value());
      ASSERT_EQ(**found, id) << i;
    }
  }
}

TEST_F(CudaKernels, Prompts) {
  for (const char* name : {"bitnet-packed", "llama-divide"}) {
    const Pair models(name);
    ASSERT_TRUE(models.loaded());
    for (const KvType kv_type : kCaches) {
      for (const int64_t n : {10, 50, 70}) {
        Session a = new_session(*models.cpu, n, 1, kv_type, 80), b = new_session(*models.gpu, n, 1, kv_type, 80);
        const auto ids = random_ids(n, models.vocab_size());
        if (kv_type != KvType::kF16) {
          compare_step(a, b, ids, 0);
          continue;
        }
        ASSERT_TRUE(b.append(ids));  // other bits (numerics.md 12)
        for (const float logit : b.logits()) ASSERT_TRUE(std::isfinite(logit));
      }
    }
  }
}

// Every size of a step's products and of the head's groups, tokens and then prompts, by pages.
TEST_F(CudaKernels, Batches) {
  const Pair models("bitnet-packed", HeadMode::kCertified);
  ASSERT_TRUE(models.loaded());
  const auto ids = random_ids(2, models.vocab_size());
  for (const KvType kv_type : kCaches) {
    Session alone = new_session(*models.cpu, 8, 1, kv_type, 8);
    std::vector<int32_t> want;
    for (const int32_t id : ids) {
      ASSERT_TRUE(alone.append({&id, 1}));
      want.push_back(argmax(alone.logits()));
    }
    for (const int64_t n : {2, 5, 9, 20, 40, 150}) {
      if (kv_type != KvType::kF16 && n > 9 && n < 150) continue;
      BatchOptions options;
      options.max_sequences = n;
      options.n_ctx = 64;
      options.kv_type = kv_type;
      auto batch = Batch::create(*models.gpu, options);
      ASSERT_TRUE(batch) << batch.error().message;
      std::vector<Batch::Part> parts;
      for (int64_t i = 0; i < n; ++i) parts.push_back({*batch->open(), {}});
      std::vector<BestToken> best(parts.size());
      for (size_t step = 0; step < ids.size(); ++step) {
        for (Batch::Part& part : parts) part.ids = {&ids[step], 1};
        ASSERT_TRUE(batch->step(parts, best));
        for (const BestToken& token : best) ASSERT_EQ(token.id, want[step]) << n << " sequences, step " << step;
      }
    }
  }
}

TEST_F(CudaKernels, PromptsInABatch) {
  const Pair models("bitnet-packed");
  ASSERT_TRUE(models.loaded());
  const auto ids = random_ids(150, models.vocab_size());
  for (const KvType kv_type : {KvType::kF16, KvType::kF32}) {
    BatchOptions options;
    options.max_sequences = 2;
    options.n_ctx = 192;
    options.kv_type = kv_type;
    auto batch = Batch::create(*models.gpu, options);
    ASSERT_TRUE(batch) << batch.error().message;
    const Batch::Part parts[] = {{*batch->open(), ids}, {*batch->open(), std::span(ids).first(149)}};
    std::vector<float> logits(2 * size_t(models.vocab_size()));
    ASSERT_TRUE(batch->step(parts, 0, {logits.data(), 2, models.vocab_size()}));
    for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
    if (kv_type != KvType::kF32) continue;
    Session alone = new_session(*models.cpu, 150, 1, kv_type, 192);
    ASSERT_TRUE(alone.append(ids));
    compare(alone.logits(), std::span(logits).first(size_t(models.vocab_size())), 0);
  }
}

}  // namespace
}  // namespace bitnet
