#include "bitnet/generate.h"
#include "runtime/sampler.h"
#include "runtime/test_gpu.h"

#include <gtest/gtest.h>

#include <iterator>

// Tokens drawn on the GPU: those that the CPU's sampler draws from the CPU's logits.
namespace bitnet {
namespace {

using CudaSampling = OnGpu;

template <class T, size_t n>
T pick(const T (&values)[n], uint64_t random) {
  return values[random % n];
}

// Options number `i` for a vocabulary of so many tokens.
SamplingOptions random_options(uint64_t i, int64_t vocab_size) {
  const CounterRng rng(21, i);
  SamplingOptions options;
  options.temperature = pick({0.1f, 0.5f, 0.8f, 1.0f, 1.7f, 5.0f, 1e-4f}, rng.bits(0));
  options.top_k = std::min(pick({1, 2, 17, 40, 200, 500, 1024}, rng.bits(1)), int(vocab_size) - 1);
  options.top_p = pick({0.0f, 0.3f, 0.9f, 0.95f, 1.0f}, rng.bits(2));
  options.min_p = pick({0.0f, 0.05f, 0.3f, 1.0f}, rng.bits(3));
  options.seed = rng.bits(4);
  return options;
}

// Draws that follow one another, that are led elsewhere, and that go back, under options that change.
TEST_F(CudaSampling, AnyWalkDrawsTheTokensOfTheCpu) {
  struct Case {
    std::string path;
    HeadMode head;
    KvType kv_type;
    uint64_t n_options;
  };
  const std::string storyteller = BITNET_SOURCE_DIR "/models/storyteller-29m.gguf";
  uint64_t n_draws = 0;
  for (const Case& c : {Case{tiny_path("bitnet-packed"), HeadMode::kCertified, KvType::kF16, 120},
                        Case{tiny_path("bitnet-packed"), HeadMode::kFull, KvType::kF32, 60},
                        Case{tiny_path("bitnet-odd-shapes"), HeadMode::kCertified, KvType::kF16, 60},
                        Case{tiny_path("llama-wide-heads"), HeadMode::kAuto, KvType::kF16, 40},
                        Case{storyteller, HeadMode::kCertified, KvType::kF16, 40},
                        Case{storyteller, HeadMode::kFull, KvType::kQ8_0, 20}}) {
    const auto cpu = load_on(c.path, "cpu", c.head), gpu = load_on(c.path, "cuda", c.head);
    ASSERT_TRUE(cpu && gpu);
    const int64_t vocab_size = cpu->info().vocab_size;
    Session a = new_session(*cpu, 16, 4, c.kv_type, 128), b = new_session(*gpu, 16, 1, c.kv_type, 128);
    for (uint64_t i = 0; i < c.n_options; ++i) {
      const SamplingOptions options = random_options(i, vocab_size);
      const CounterRng rng(5, i);
      Sampler sampler = *Sampler::create(options, vocab_size);
      int32_t id = int32_t(rng.bits(0) % uint64_t(vocab_size));
      for (uint64_t step = 1; step <= 25; ++step) {
        if (a.n_past() == a.n_ctx()) {
          const int64_t n_past = int64_t(rng.bits(100 + step) % 100);
          ASSERT_TRUE(a.truncate(n_past));
          ASSERT_TRUE(b.truncate(n_past));
        }
        ASSERT_TRUE(a.append({&id, 1}));
        const auto found = b.append_sampled(id, options, sampler.n_draws());
        const auto want = sampler.sample(a.logits(), {});
        ASSERT_TRUE(want.has_value());
        ASSERT_TRUE(found.has_value()) << found.error().message;
        ASSERT_TRUE(found->has_value());
        ASSERT_EQ(**found, *want) << c.path << ", options " << i << ", step " << step;
        ASSERT_EQ(a.n_past(), b.n_past());
        ++n_draws;
        id = *want;
        if (rng.bits(200 + step) % 8 == 0) id = int32_t(rng.bits(300 + step) % uint64_t(vocab_size));
      }
    }
  }
  std::printf("%llu draws\n", static_cast<unsigned long long>(n_draws));
}

TEST_F(CudaSampling, TextsOfTheStorytellerAreTheCpus) {
  const std::string path = BITNET_SOURCE_DIR "/models/storyteller-29m.gguf";
  const auto cpu = load_on(path, "cpu"), gpu = load_on(path, "cuda");
  ASSERT_TRUE(cpu && gpu);
  for (uint64_t seed = 0; seed < 12; ++seed) {
    GenerateOptions options;
    options.max_new_tokens = 80;
    options.sampling.seed = seed;
    options.sampling.temperature = 0.4f + 0.1f * float(seed);
    if (seed % 4 == 1) options.max_draft = 4;
    if (seed % 4 == 2) options.sampling.repeat_penalty = 1.1f;  // drawn by the host
    if (seed % 4 == 3) options.sampling.top_k = 0;
    Session a = new_session(*cpu, 64, 4, KvType::kF32), b = new_session(*gpu, 64, 1, KvType::kF32);
    const auto expected = generate(a, "Once upon a time", options), found = generate(b, "Once upon a time", options);
    ASSERT_TRUE(expected && found);
    EXPECT_EQ(expected->ids, found->ids) << "seed " << seed;
    // Both go on from there, with logits or without.
    const auto more_expected = generate(a, " and", options), more_found = generate(b, " and", options);
    ASSERT_TRUE(more_expected && more_found);
    EXPECT_EQ(more_expected->ids, more_found->ids) << "seed " << seed;
  }
}

TEST_F(CudaSampling, WhatTheDeviceDoesNotDrawChangesNothing) {
  const auto gpu = load_on(tiny_path("bitnet-packed"), "cuda");
  ASSERT_TRUE(gpu);
  Session session = new_session(*gpu, 16, 1, KvType::kF16, 128);
  SamplingOptions greedy, all, many, penalties;
  greedy.temperature = 0;
  all.top_k = 0;
  many.top_k = int(gpu->info().vocab_size);
  penalties.presence_penalty = 0.5f;
  for (const SamplingOptions& options : {greedy, all, many, penalties}) {
    const auto drawn = session.append_sampled(3, options, 0);
    ASSERT_TRUE(drawn.has_value());
    EXPECT_FALSE(drawn->has_value());
    EXPECT_EQ(session.n_past(), 0);
  }
  EXPECT_EQ(session.append_sampled(1 << 20, SamplingOptions(), 0).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace bitnet
