#include "bitnet/generate.h"
#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/lora_adapter.h"
#include "runtime/test_gpu.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

// Sessions on the GPU: the same tokens as on the CPU, whatever is asked for in between.
namespace bitnet {
namespace {

using CudaSession = OnGpu;

// Steps that continue greedily, that leave the greedy path, that go back, and that want other logits.
TEST_F(CudaSession, AnyWalkGivesTheLogitsOfTheCpu) {
  for (const char* name : {"bitnet-packed", "bitnet-odd-shapes", "llama-divide", "llama-wide-heads", "certified"}) {
    const bool certified = std::string_view(name) == "certified";
    const std::string path = tiny_path(certified ? "bitnet-odd-shapes" : name);
    const auto cpu = load_on(path, "cpu");
    const auto gpu = load_on(path, "cuda", certified ? HeadMode::kCertified : HeadMode::kAuto);
    ASSERT_TRUE(cpu && gpu);
    Session a = new_session(*cpu, 256, 1, KvType::kF16, 200), b = new_session(*gpu, 256, 1, KvType::kF16, 200);
    const CounterRng rng(3);
    int32_t id = 5;
    for (uint64_t i = 0; i < 150; ++i) {
      const int64_t n_best = rng.bits(4 * i) % 8 == 0 ? 0 : 1;
      a.want_logits(0);
      b.want_logits(n_best);
      ASSERT_TRUE(a.append({&id, 1}));
      ASSERT_TRUE(b.append({&id, 1}));
      const int32_t best = argmax(a.logits());
      ASSERT_EQ(argmax(b.logits()), best) << name << ", step " << i;
      ASSERT_EQ(b.logits()[size_t(best)], a.logits()[size_t(best)]) << name << ", step " << i;
      if (n_best == 0) {
        ASSERT_EQ(copy(a.logits()), copy(b.logits())) << name << ", step " << i;
      }
      id = best;
      if (rng.bits(4 * i + 1) % 8 == 0) id = int32_t(rng.bits(4 * i + 2) % uint64_t(cpu->info().vocab_size));
      if (rng.bits(4 * i + 3) % 16 == 0) {
        const int64_t n_past = a.n_past() / 2;
        ASSERT_TRUE(a.truncate(n_past));
        ASSERT_TRUE(b.truncate(n_past));
      }
    }
  }
}

// With an adapter a model runs by its operations, whose bits are the processor's: tokens one by one and together.
TEST_F(CudaSession, AnAdapterGivesTheLogitsOfTheCpu) {
  const std::string adapter = testing::TempDir() + "bitnet_adapter_" + std::to_string(::getpid());
  for (const char* const name : {"bitnet-packed", "bitnet-odd-shapes", "llama-divide"}) {
    const auto checkpoint = Checkpoint::open(tiny_path(name));
    ASSERT_TRUE(checkpoint);
    ThreadPool pool(1);
    constexpr int64_t kRank = 5;
    std::vector<float> noise(size_t(1) << 14);
    for (size_t i = 0; i < noise.size(); ++i) noise[i] = float(0.1 * CounterRng(4).normal(i));
    std::vector<LoraValues> values;
    for (const WeightSpec& spec : checkpoint->weights()) {
      if (spec.kind != WeightKind::kLinear) continue;
      ASSERT_LE(kRank * std::max(spec.shape[0], spec.shape[1]), int64_t(noise.size()));
      values.push_back({&spec, noise.data(), noise.data()});
    }
    ASSERT_TRUE(
        write_lora_adapter({name, *lora_base_of(*checkpoint, pool), kRank, 7, {WeightRole::kQ}}, values, adapter));
    LoadOptions options;
    options.lora = adapter;
    const auto cpu = Model::load(tiny_path(name), options);
    options.device = "cuda";
    const auto gpu = Model::load(tiny_path(name), options);
    ASSERT_TRUE(cpu && gpu) << (cpu ? gpu : cpu).error().message;
    const std::vector<int32_t> ids = random_ids(40, cpu->info().vocab_size);
    for (const int64_t chunk : {1, 7}) {
      Session a = new_session(*cpu, chunk, 1, KvType::kF32), b = new_session(*gpu, chunk, 1, KvType::kF32);
      ASSERT_TRUE(a.append(ids));
      ASSERT_TRUE(b.append(ids));
      EXPECT_EQ(copy(a.logits()), copy(b.logits())) << name << ", " << chunk << " at once";
    }
  }
  std::filesystem::remove_all(adapter);
}

// BitNet 2B4T's shape, over the position from which on a token's layers are no longer one kernel.
TEST_F(CudaSession, ALargeModelsTokensAreTheCpusInLongContextsToo) {
  const std::string path = testing::TempDir() + "bitnet_2b4t_" + std::to_string(::getpid()) + ".gguf";
  ASSERT_TRUE(synthesize(path, {}));
  const auto cpu = load_on(path, "cpu"), gpu = load_on(path, "cuda");
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_TRUE(cpu && gpu);
  for (const KvType kv_type : {KvType::kF16, KvType::kF32, KvType::kInt8}) {
    const int64_t n_tokens = kv_type == KvType::kF16 ? 1040 : 540;
    Session a = new_session(*cpu, 256, 8, kv_type, 1200), b = new_session(*gpu, 256, 1, kv_type, 1200);
    const auto ids = random_ids(n_tokens, cpu->info().vocab_size, 9);
    for (int64_t i = 0; i < n_tokens; ++i) {
      const bool all = i % 256 == 255;
      a.want_logits(all ? 0 : 1);
      b.want_logits(all ? 0 : 1);
      ASSERT_TRUE(a.append({&ids[size_t(i)], 1}));
      ASSERT_TRUE(b.append({&ids[size_t(i)], 1}));
      const auto best = size_t(argmax(a.logits()));
      ASSERT_EQ(argmax(b.logits()), int32_t(best)) << "position " << i;
      ASSERT_EQ(b.logits()[best], a.logits()[best]) << "position " << i;
      if (all) {
        ASSERT_EQ(copy(a.logits()), copy(b.logits())) << "position " << i;
      }
    }
  }
}

TEST_F(CudaSession, GreedyTextOfTheStorytellerIsTheCpus) {
  const std::string path = BITNET_SOURCE_DIR "/models/storyteller-29m.gguf";
  const auto cpu = load_on(path, "cpu"), gpu = load_on(path, "cuda");
  ASSERT_TRUE(cpu && gpu);
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = 100;
  for (const char* prompt : {"Once", "The", "A boy", "In", "When"}) {
    Session a = new_session(*cpu, 1, 4), b = new_session(*gpu, 1);
    const auto expected = generate(a, prompt, options), found = generate(b, prompt, options);
    ASSERT_TRUE(expected && found);
    EXPECT_EQ(expected->ids, found->ids) << prompt;
  }
}

// Prompts of several tokens at once: with a float32 cache their logits are the CPU's. With half floats tensor cores
// compute their attention (numerics.md 12), which moves some activations to the next int8 level, as rounding the cache
// does: the limits are those of golden_test.cc for that.
TEST_F(CudaSession, PromptsGiveTheLogitsOfTheCpu) {
  const std::string path = BITNET_SOURCE_DIR "/models/storyteller-29m.gguf";
  const auto cpu = load_on(path, "cpu"), gpu = load_on(path, "cuda");
  ASSERT_TRUE(cpu && gpu);
  double difference = 0, norm = 0;
  for (uint64_t i = 0; i < 50; ++i) {
    const auto ids = random_ids(int64_t(5 + 7 * i), cpu->info().vocab_size, i);
    for (const KvType kv_type : {KvType::kF32, KvType::kQ8_0, KvType::kInt8, KvType::kF16}) {
      Session a = new_session(*cpu, 256, 8, kv_type, 512), b = new_session(*gpu, 256, 1, kv_type, 512);
      ASSERT_TRUE(a.append(ids));
      ASSERT_TRUE(b.append(ids));
      const std::vector<float> expected = copy(a.logits()), found = copy(b.logits());
      if (kv_type != KvType::kF16) {
        ASSERT_EQ(expected, found) << "prompt " << i;
        continue;
      }
      for (size_t k = 0; k < expected.size(); ++k) {
        difference += std::pow(double(found[k]) - double(expected[k]), 2);
        norm += std::pow(double(expected[k]), 2);
      }
      std::vector<float> sorted = expected;
      std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
      if (sorted[0] - sorted[1] > 0.1f) {
        EXPECT_EQ(argmax(expected), argmax(found)) << "prompt " << i;
      }
    }
  }
  std::printf("f16 cache: relative RMS of the logits %.3g\n", std::sqrt(difference / norm));
  EXPECT_LE(std::sqrt(difference / norm), 3e-2);
}

TEST_F(CudaSession, ADeviceThatIsNotThereIsAnError) {
  const auto missing = load_on(tiny_path("bitnet-packed"), "cuda:99");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("numbered from 0"), std::string::npos) << missing.error().message;
}

}  // namespace
}  // namespace bitnet
