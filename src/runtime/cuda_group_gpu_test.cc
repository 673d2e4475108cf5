#include "bitnet/generate.h"
#include "model/convert.h"
#include "runtime/batch.h"
#include "runtime/test_gpu.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

// Several GPUs that share a model give the bits of one.
namespace bitnet {
namespace {

class CudaGroup : public testing::Test {
 protected:
  void SetUp() override {
    const auto probe = make_backend("cuda:0,1");
    if (!probe) GTEST_SKIP() << probe.error().message;
  }
};

void expect_same_steps(const Model& one, const Model& several, KvType kv_type, int64_t n_tokens) {
  const int64_t vocab_size = one.info().vocab_size, n_ctx = n_tokens + 140;
  Session a = new_session(one, 128, 1, kv_type, n_ctx), b = new_session(several, 128, 1, kv_type, n_ctx);
  // Prompts by each kind of products, a chunk's end in one.
  for (const int64_t n : {100, 7}) {
    const auto ids = random_ids(n, vocab_size, uint64_t(n));
    ASSERT_TRUE(a.append(ids));
    const Status appended = b.append(ids);
    ASSERT_TRUE(appended) << appended.error().message;
    ASSERT_EQ(copy(a.logits()), copy(b.logits())) << "prompt of " << n;
  }
  const CounterRng rng(17);
  int32_t id = 5;
  for (uint64_t i = 0; int64_t(i) < n_tokens; ++i) {
    const int64_t n_best = i % 8 == 3 ? 0 : i % 8 == 6 ? 5 : 1;
    a.want_logits(0);
    b.want_logits(n_best);
    ASSERT_TRUE(a.append({&id, 1}));
    ASSERT_TRUE(b.append({&id, 1}));
    const std::vector<float> want = copy(a.logits()), found = copy(b.logits());
    std::vector<float> sorted = want;
    const int64_t last = n_best == 0 ? vocab_size : n_best;
    std::nth_element(sorted.begin(), sorted.begin() + last - 1, sorted.end(), std::greater<>());
    for (size_t k = 0; k < want.size(); ++k) {
      const bool wanted = want[k] >= sorted[size_t(last) - 1];
      if (wanted || std::isfinite(found[k])) {
        ASSERT_EQ(found[k], want[k]) << "step " << i << ", id " << k;
      }
    }
    ASSERT_EQ(argmax(found), argmax(want)) << "step " << i;
    id = argmax(want);
    if (rng.bits(2 * i) % 6 == 0) id = int32_t(rng.bits(2 * i + 1) % uint64_t(vocab_size));
    if (i == 20) {
      ASSERT_TRUE(a.truncate(50));
      ASSERT_TRUE(b.truncate(50));
    }
  }
}

TEST_F(CudaGroup, TokensAndPromptsHaveTheLogitsOfOneGpu) {
  const std::string storyteller = BITNET_SOURCE_DIR "/models/storyteller-29m.gguf";
  for (const std::string& path : {tiny_path("bitnet-packed"), tiny_path("llama-divide"), storyteller}) {
    for (const HeadMode head : {HeadMode::kCertified, HeadMode::kFull}) {
      const auto one = load_on(path, "cuda:0", head), several = load_on(path, "cuda:0,1", head);
      ASSERT_TRUE(one);
      ASSERT_TRUE(several) << several.error().message;
      for (const KvType kv_type : {KvType::kF16, KvType::kF32, KvType::kQ8_0}) {
        SCOPED_TRACE(path + (kv_type == KvType::kF16 ? " f16" : kv_type == KvType::kF32 ? " f32" : " q8_0"));
        expect_same_steps(*one, *several, kv_type, 40);
      }
    }
  }
}

// Five key heads: the GPUs' shares differ.
TEST_F(CudaGroup, AModelWhoseHeadsDoNotDivideHasTheLogitsOfOneGpu) {
  const std::string path = testing::TempDir() + "bitnet_group_" + std::to_string(::getpid()) + ".gguf";
  ASSERT_TRUE(synthesize(path, {}));
  const auto one = load_on(path, "cuda:0"), several = load_on(path, "cuda:1,0");
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_TRUE(one);
  ASSERT_TRUE(several) << several.error().message;
  for (const KvType kv_type : {KvType::kF16, KvType::kF32}) expect_same_steps(*one, *several, kv_type, 24);
}

TEST_F(CudaGroup, SequencesInOneStepHaveTheTokensOfOneGpu) {
  for (const char* name : {"bitnet-packed", "llama-divide"}) {
    const auto one = load_on(tiny_path(name), "cuda:0", HeadMode::kCertified);
    const auto several = load_on(tiny_path(name), "cuda:0,1", HeadMode::kCertified);
    ASSERT_TRUE(one && several);
    const int64_t vocab_size = one->info().vocab_size;
    for (const int64_t n : {2, 9, 40}) {
      BatchOptions options;
      options.max_sequences = n;
      options.n_ctx = 128;
      options.kv_type = n == 9 ? KvType::kQ8_0 : KvType::kF16;
      auto a = Batch::create(*one, options), b = Batch::create(*several, options);
      ASSERT_TRUE(a && b);
      std::vector<std::vector<int32_t>> ids(static_cast<size_t>(n));
      std::vector<Batch::Part> parts;
      for (int64_t i = 0; i < n; ++i) {
        parts.push_back({*a->open(), {}});
        ASSERT_EQ(*b->open(), parts.back().sequence);
      }
      for (uint64_t step = 0; step < 30; ++step) {
        for (size_t i = 0; i < parts.size(); ++i) {
          // Prompts of their own lengths, some in the middle, then tokens.
          const bool prompt = step == 0 || (step == 12 && i % 3 == 0);
          ids[i] = random_ids(prompt ? 1 + int64_t(i) % 9 : 1, vocab_size, step * 1000 + i);
          parts[i].ids = ids[i];
        }
        std::vector<BestToken> want(parts.size()), found(parts.size());
        if (step % 10 == 9) {
          std::vector<float> all_want(parts.size() * size_t(vocab_size)), all_found = all_want;
          ASSERT_TRUE(a->step(parts, 0, {all_want.data(), n, vocab_size}));
          ASSERT_TRUE(b->step(parts, 0, {all_found.data(), n, vocab_size}));
          ASSERT_EQ(all_want, all_found) << name << ", " << n << " sequences, step " << step;
          continue;
        }
        ASSERT_TRUE(a->step(parts, want));
        ASSERT_TRUE(b->step(parts, found));
        for (size_t i = 0; i < parts.size(); ++i) {
          ASSERT_EQ(found[i].id, want[i].id) << name << ", " << n << " sequences, step " << step << ", row " << i;
          ASSERT_EQ(found[i].logit, want[i].logit) << name << ", " << n << " sequences, step " << step << ", row " << i;
        }
      }
    }
  }
}

TEST_F(CudaGroup, TextsAreThoseOfOneGpu) {
  const std::string path = BITNET_SOURCE_DIR "/models/storyteller-29m.gguf";
  const auto one = load_on(path, "cuda:0"), several = load_on(path, "cuda:0,1");
  ASSERT_TRUE(one && several);
  for (uint64_t seed = 0; seed < 4; ++seed) {
    GenerateOptions options;
    options.max_new_tokens = 60;
    options.sampling.seed = seed;
    options.sampling.temperature = 0.5f * float(seed);
    Session a = new_session(*one), b = new_session(*several), c = new_session(*several);
    const auto want = generate(a, "Once upon a time", options);
    const auto found = generate(b, "Once upon a time", options), again = generate(c, "Once upon a time", options);
    ASSERT_TRUE(want && found && again);
    EXPECT_EQ(want->ids, found->ids) << "seed " << seed;
    EXPECT_EQ(want->ids, again->ids) << "seed " << seed;
  }
}

TEST_F(CudaGroup, WhatCannotBeSharedIsAnError) {
  const auto one_key_head = load_on(tiny_path("bitnet-odd-shapes"), "cuda:0,1");
  ASSERT_FALSE(one_key_head);
  EXPECT_NE(one_key_head.error().message.find("key/value heads"), std::string::npos) << one_key_head.error().message;
  LoadOptions options;
  options.device = "cuda:0,1";
  options.act_quant = false;
  const auto floats = Model::load(tiny_path("bitnet-packed"), options);
  ASSERT_TRUE(floats);
  EXPECT_EQ(floats->new_session().error().code, ErrorCode::kUnsupported);
}

TEST(CudaGroupNames, AreCheckedBeforeAnyGpuIsOpened) {
  for (const char* device : {"cuda:0,0", "cuda:0,", "cuda:,1", "cuda:0;1", "cuda:0,-1"}) {
    const auto backend = make_backend(device);
    ASSERT_FALSE(backend.has_value()) << device;
    EXPECT_EQ(backend.error().code, ErrorCode::kInvalidArgument) << device << ": " << backend.error().message;
  }
}

}  // namespace
}  // namespace bitnet
