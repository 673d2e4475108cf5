#include "format/gguf.h"
#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/presets.h"
#include "model/tiny_model_test.h"
#include "quant/blocks.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#ifdef __linux__
#include <sched.h>
#endif

namespace bitnet {
namespace {

SynthOptions tiny_options(DType linear = DType::kI2_S, DType embed = DType::kF16, uint64_t seed = 0) {
  SynthOptions options;
  options.preset = "tiny";
  options.linear_type = linear;
  options.embed_type = embed;
  options.seed = seed;
  return options;
}

std::vector<uint8_t> codes_of(const Checkpoint& checkpoint, const WeightSpec& spec, float* alpha) {
  std::vector<uint8_t> codes(size_t(spec.n_values()));
  auto linear = checkpoint.linear(spec);
  EXPECT_TRUE(linear) << linear.error().message;
  const auto& source = std::get<TernarySource>(linear->weight);
  *alpha = source.scales.tensor;
  EXPECT_TRUE(source.read_codes(0, spec.shape[0], codes.data()));
  return codes;
}

TEST(Synth, LooksLikeATrainedModelWhereItMatters) {
  const TestFolder folder;
  BN_ASSERT_OK(synthesize(folder / "m.gguf", tiny_options()));
  const auto checkpoint = Checkpoint::open(folder / "m.gguf");
  BN_ASSERT_OK(checkpoint);
  EXPECT_EQ(checkpoint->weight_types(), "I2_S 14, F32 9, F16 1");
  EXPECT_FALSE(checkpoint->vocabulary());
  std::array<int64_t, 3> counts{};
  int64_t n = 0, repeats = 0;
  for (const WeightSpec& spec : checkpoint->weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    float alpha = 0;
    const auto codes = codes_of(*checkpoint, spec, &alpha);
    EXPECT_NEAR(alpha * std::sqrt(0.625 * double(spec.shape[1])), 1.0, 0.11) << spec.gguf_name;
    for (size_t i = 0; i < codes.size(); ++i) {
      ++counts[codes[i]];
      repeats += i >= 32 && codes[i] == codes[i - 32];
    }
    n += spec.n_values();
  }
  EXPECT_NEAR(double(counts[1]) / double(n), 0.375, 0.005);
  EXPECT_NEAR(double(counts[0]) / double(n), 0.3125, 0.005);
  // Independent codes agree with probability 0.375^2 + 2 * 0.3125^2.
  EXPECT_NEAR(double(repeats) / double(n), 0.3359, 0.005);
  const auto table = checkpoint->table(checkpoint->weights()[0]);
  BN_ASSERT_OK(table);
  std::vector<std::byte> bytes(512 * 256 * 2);
  BN_ASSERT_OK(table->read_rows(0, 512, bytes.data()));
  std::vector<float> values(512 * 256);
  BN_ASSERT_OK(dequantize(DType::kF16, bytes, 512 * 256, values.data()));
  double mean = 0, square = 0;
  for (const float v : values) {
    mean += v;
    square += double(v) * double(v);
  }
  EXPECT_NEAR(mean / double(values.size()), 0.0, 0.001);
  EXPECT_NEAR(square / double(values.size()) * 256, 1.0, 0.02);
}

TEST(Synth, TypesHoldTheSameModel) {
  const TestFolder folder;
  BN_ASSERT_OK(synthesize(folder / "i2s.gguf", tiny_options()));
  const auto expected = Checkpoint::open(folder / "i2s.gguf");
  BN_ASSERT_OK(expected);
  for (const DType type : {DType::kTQ1_0, DType::kTQ2_0}) {
    BN_ASSERT_OK(synthesize(folder / "tq.gguf", tiny_options(type, DType::kQ6_K)));
    const auto found = Checkpoint::open(folder / "tq.gguf");
    BN_ASSERT_OK(found);
    for (const WeightSpec& spec : found->weights()) {
      if (spec.kind != WeightKind::kLinear) continue;
      float alpha = 0, rounded = 0;
      EXPECT_EQ(codes_of(*expected, spec, &alpha), codes_of(*found, spec, &rounded)) << spec.gguf_name;
      EXPECT_NEAR(alpha, rounded, alpha / 2048);
    }
  }
}

TEST(Synth, IsAFunctionOfTheSeedAlone) {
  const TestFolder folder;
  BN_ASSERT_OK(synthesize(folder / "a.gguf", tiny_options()));
#ifdef __linux__
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);  // one thread
#endif
  const Status again = synthesize(folder / "b.gguf", tiny_options());
#ifdef __linux__
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
#endif
  BN_ASSERT_OK(again);
  BN_ASSERT_OK(synthesize(folder / "c.gguf", tiny_options(DType::kI2_S, DType::kF16, 1)));
  EXPECT_EQ(*read_file(folder / "a.gguf"), *read_file(folder / "b.gguf"));
  EXPECT_NE(*read_file(folder / "a.gguf"), *read_file(folder / "c.gguf"));
}

TEST(Synth, PresetsAreValidShapes) {
  EXPECT_EQ(synth_presets().front(), "2b4t");
  for (const std::string& name : synth_presets()) {
    const auto config = preset_config(name);
    BN_ASSERT_OK(config);
    BN_ASSERT_OK(check_config(*config, name));
  }
  const auto count = [](const char* name) { return count_parameters(*preset_config(name)); };
  EXPECT_EQ(count("2b4t"), 2412820480);
  EXPECT_NEAR(double(count("llama3-8b")), 8.03e9, 0.01e9);
  EXPECT_NEAR(double(count("falcon3-7b")), 7.46e9, 0.01e9);
  EXPECT_NEAR(double(count("falcon3-10b")), 10.31e9, 0.01e9);
  EXPECT_NEAR(double(count("3b")), 3.32e9, 0.02e9);
}

TEST(Synth, RefusesWhatItCannotMake) {
  const TestFolder folder;
  SynthOptions options = tiny_options();
  options.preset = "9b";
  expect_error(synthesize(folder / "m.gguf", options), ErrorCode::kInvalidArgument, {"9b", "2b4t", "tiny"});
  options.preset = "3b";
  options.linear_type = DType::kTQ2_0;
  const Status refused = synthesize(folder / "m.gguf", options);
  expect_error(refused, ErrorCode::kInvalidArgument, {"blk.0.attn_q.weight", "256"});
  EXPECT_NE(refused.error().suggestion.find("i2_s"), std::string::npos);
  options = tiny_options(DType::kF16);
  expect_error(synthesize(folder / "m.gguf", options), ErrorCode::kInvalidArgument, {"F16"});
  options = tiny_options();
  options.on_progress = [](double done) { return done < 0.5; };
  expect_error(synthesize(folder / "m.gguf", options), ErrorCode::kInterrupted, {});
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace bitnet
