#include "model/config.h"
#include "model/tiny_model_test.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace bitnet {
namespace {

Result<GgufConfig> config_of(const TinyGguf& gguf) {
  const TestFolder folder;
  const std::string path = folder / "m.gguf";
  gguf.write(path);
  auto file = GgufFile::open(path);
  if (!file) return file.error();
  return config_from_gguf(*file);
}

TEST(GgufConfigTest, ReadsEveryField) {
  ModelConfig c = tiny_config("bitnet-b1.58");
  c.rope_theta = 500000.0;
  const auto parsed = config_of(tiny_gguf(c));
  BN_ASSERT_OK(parsed);
  const ModelConfig& p = parsed->config;
  EXPECT_EQ(p.architecture, "bitnet-b1.58");
  EXPECT_EQ(p.name, "tiny");
  EXPECT_EQ(p.n_layers, 2);
  EXPECT_EQ(p.d_model, 256);
  EXPECT_EQ(p.d_ff, 512);
  EXPECT_EQ(p.n_heads, 4);
  EXPECT_EQ(p.n_kv_heads, 2);
  EXPECT_EQ(p.head_dim, 64);
  EXPECT_EQ(p.rope_dim, 64);
  EXPECT_EQ(p.vocab_size, 48);
  EXPECT_EQ(p.n_ctx_train, 128);
  EXPECT_EQ(p.rope_theta, 500000.0);
  EXPECT_EQ(p.rms_eps, 1e-5f);
  EXPECT_TRUE(p.sub_norms && p.tied_head && p.ternary && !p.input_norms);
  EXPECT_EQ(p.gate_activation, GateActivation::kRelu2);
  EXPECT_TRUE(parsed->notices.empty());
}

TEST(GgufConfigTest, ArchitecturesDiffer) {
  const auto older = config_of(tiny_gguf(tiny_config("bitnet-25")));
  BN_ASSERT_OK(older);
  EXPECT_EQ(older->config.gate_activation, GateActivation::kRelu2);
  const auto one_bit = config_of(tiny_gguf(tiny_config("bitnet")));
  BN_ASSERT_OK(one_bit);
  EXPECT_EQ(one_bit->config.gate_activation, GateActivation::kSilu);
  EXPECT_TRUE(one_bit->config.sub_norms);
  const auto llama = config_of(tiny_gguf(tiny_config("llama")));
  BN_ASSERT_OK(llama);
  EXPECT_EQ(llama->config.gate_activation, GateActivation::kSilu);
  EXPECT_FALSE(llama->config.sub_norms || llama->config.tied_head);
}

TEST(GgufConfigTest, LlamaIsTernaryByItsTypesOrBySayingSo) {
  const ModelConfig c = tiny_config("llama");
  EXPECT_TRUE(config_of(tiny_gguf(c, DType::kTQ2_0))->config.ternary);
  TinyGguf floats = tiny_gguf(c, DType::kF16);
  EXPECT_FALSE(config_of(floats)->config.ternary);
  floats.set("bitnet.quantized_inputs", true);
  EXPECT_TRUE(config_of(floats)->config.ternary);
}

TEST(GgufConfigTest, WideHeadsAndDefaults) {
  ModelConfig c = tiny_config("llama");
  c.head_dim = c.rope_dim = 128;  // 4 heads of 128 on a width of 256
  TinyGguf gguf = tiny_gguf(c);
  gguf.set("llama.attention.key_length", uint32_t{128});
  gguf.set("llama.attention.value_length", uint64_t{128});
  gguf.remove("llama.rope.dimension_count");
  gguf.remove("llama.rope.freq_base");
  gguf.remove("llama.vocab_size");
  const auto parsed = config_of(gguf);
  BN_ASSERT_OK(parsed);
  EXPECT_EQ(parsed->config.head_dim, 128);
  EXPECT_EQ(parsed->config.rope_dim, 128);
  EXPECT_EQ(parsed->config.rope_theta, 10000.0);
  EXPECT_EQ(parsed->config.vocab_size, 48);
}

TEST(GgufConfigTest, WhatIsWrittenReadsBack) {
  for (const char* architecture : {"bitnet-b1.58", "bitnet", "llama"}) {
    ModelConfig c = tiny_config(architecture);
    c.head_dim = 96;
    c.rope_dim = 48;
    c.rope_theta = 1000042.0;
    c.rms_eps = 1e-6f;
    const TestFolder folder;
    auto writer = GgufWriter::create(folder / "m.gguf");
    BN_ASSERT_OK(writer);
    BN_ASSERT_OK(config_to_gguf(c, *writer));
    if (!c.tied_head) BN_ASSERT_OK(writer->add_tensor("output.weight", DType::kF32, {1}));
    BN_ASSERT_OK(writer->begin_data());
    if (!c.tied_head) BN_ASSERT_OK(writer->write_data(std::vector<std::byte>(4)));
    BN_ASSERT_OK(writer->finish());
    const auto file = GgufFile::open(folder / "m.gguf");
    BN_ASSERT_OK(file);
    const auto parsed = config_from_gguf(*file);
    BN_ASSERT_OK(parsed);
    const ModelConfig& p = parsed->config;
    EXPECT_EQ(p.architecture, c.architecture);
    EXPECT_EQ(std::tuple(p.n_layers, p.d_model, p.d_ff, p.n_heads, p.n_kv_heads, p.head_dim, p.rope_dim, p.vocab_size),
              std::tuple(c.n_layers, c.d_model, c.d_ff, c.n_heads, c.n_kv_heads, c.head_dim, c.rope_dim, c.vocab_size));
    EXPECT_EQ(std::tuple(p.rope_theta, p.rms_eps, p.n_ctx_train, p.ternary, p.tied_head),
              std::tuple(c.rope_theta, c.rms_eps, c.n_ctx_train, c.ternary, c.tied_head));
    EXPECT_TRUE(parsed->notices.empty());
  }
}

struct BadKey {
  const char* id;  // of the reliability checklist
  const char* key;
  std::function<GgufValue()> value;  // empty: the key is left out
  std::vector<std::string> words;
  ErrorCode code = ErrorCode::kInvalidInput;
};

GgufValue u32(uint32_t v) { return v; }
GgufValue f32(float v) { return v; }

TEST(GgufConfigTest, RefusesMalformedMetadata) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto text = [](const char* t) { return [t] { return GgufValue(std::string(t)); }; };
  const auto number = [](uint32_t n) { return [n] { return u32(n); }; };
  const auto real = [](float f) { return [f] { return f32(f); }; };
  const std::vector<BadKey> cases = {
      {"M01", "general.architecture", {}, {"general.architecture"}},
      {"M01", "general.architecture", text("gpt2"), {"gpt2", "bitnet-b1.58"}, ErrorCode::kUnsupported},
      {"M01", "general.architecture", number(7), {"general.architecture"}},
      {"M02", "bitnet-b1.58.block_count", {}, {"block_count"}},
      {"M02", "bitnet-b1.58.block_count", number(0), {"layers is 0"}},
      {"M02", "bitnet-b1.58.block_count", number(2000), {"layers is 2000"}},
      {"M02", "bitnet-b1.58.block_count", number(uint32_t{1} << 31), {"layers is 2147483648"}},
      {"M02", "bitnet-b1.58.block_count", text("2"), {"block_count"}},
      {"M02",
       "bitnet-b1.58.block_count",
       [] {
         return GgufValue(GgufArray(std::vector<uint32_t>{2, 2}));
       },
       {"block_count"}},
      {"M03", "bitnet-b1.58.attention.head_count", number(0), {"head"}},
      {"M03", "bitnet-b1.58.attention.head_count_kv", number(0), {"key/value heads is 0"}},
      {"M03", "bitnet-b1.58.attention.head_count_kv", number(8), {"4 attention heads", "8"}},
      {"M03", "bitnet-b1.58.attention.head_count_kv", number(3), {"4 attention heads", "3"}},
      {"M04", "bitnet-b1.58.embedding_length", number(0), {"0"}},
      {"M04", "bitnet-b1.58.embedding_length", number(258), {"258", "4 heads"}},
      {"M04", "bitnet-b1.58.embedding_length", number(252), {"63", "even"}},
      {"M04", "bitnet-b1.58.embedding_length", number(uint32_t{1} << 30), {"1073741824"}},
      {"M05", "bitnet-b1.58.context_length", number(0), {"context length is 0"}},
      {"M05", "bitnet-b1.58.context_length", number(0xffffffffu), {"context length is 4294967295"}},
      {"M06", "bitnet-b1.58.rope.dimension_count", number(0), {"0 of a head's 64"}},
      {"M06", "bitnet-b1.58.rope.dimension_count", number(63), {"63 of a head's 64"}},
      {"M06", "bitnet-b1.58.rope.dimension_count", number(66), {"66 of a head's 64"}},
      {"M06", "bitnet-b1.58.rope.freq_base", real(0.0f), {"rotary base is 0"}},
      {"M06", "bitnet-b1.58.rope.freq_base", real(-1.0f), {"rotary base is -1"}},
      {"M06", "bitnet-b1.58.rope.freq_base", real(nan), {"freq_base", "is nan"}},
      {"M06", "bitnet-b1.58.rope.freq_base", real(inf), {"freq_base", "is inf"}},
      {"M07", "bitnet-b1.58.attention.layer_norm_rms_epsilon", {}, {"layer_norm_rms_epsilon"}},
      {"M07", "bitnet-b1.58.attention.layer_norm_rms_epsilon", real(0.0f), {"epsilon is 0"}},
      {"M07", "bitnet-b1.58.attention.layer_norm_rms_epsilon", real(-1e-5f), {"epsilon is -1e-05"}},
      {"M07", "bitnet-b1.58.attention.layer_norm_rms_epsilon", real(nan), {"epsilon", "is nan"}},
      {"M08", "bitnet-b1.58.feed_forward_length", number(0), {"d_ff) is 0"}},
      {"M09", "bitnet-b1.58.vocab_size", number(0), {"vocabulary size is 0"}},
  };
  for (const BadKey& bad : cases) {
    SCOPED_TRACE(std::string(bad.id) + " " + bad.key);
    TinyGguf gguf = tiny_gguf(tiny_config("bitnet-b1.58"));
    bad.value ? gguf.set(bad.key, bad.value()) : gguf.remove(bad.key);
    const auto result = config_of(gguf);
    expect_error(result, bad.code, bad.words);
    expect_error(result, bad.code, {"m.gguf"});
  }
}

TEST(GgufConfigTest, RefusesOtherMathematics) {
  const std::vector<std::pair<const char*, GgufValue>> cases = {
      {"llama.rope.scaling.type", std::string("yarn")},
      {"llama.rope.scaling.factor", 8.0f},
      {"llama.rope.scale_linear", 2.0f},
      {"llama.expert_count", uint32_t{8}},
      {"llama.logit_scale", 0.5f},
      {"llama.attention.scale", 0.5f},
      {"llama.attention.clamp_kqv", 8.0f},
      {"llama.attention.sliding_window", uint32_t{512}},
      {"llama.final_logit_softcapping", 30.0f},
      {"llama.attention.causal", false},
      {"llama.use_parallel_residual", true},
      {"llama.attention.sliding_window", GgufArray(std::vector<uint32_t>{0, 512})},
  };
  for (const auto& [key, value] : cases) {
    SCOPED_TRACE(key);
    TinyGguf gguf = tiny_gguf(tiny_config("llama"));
    gguf.set(key, value);
    expect_error(config_of(gguf), ErrorCode::kUnsupported, {key, "m.gguf"});
  }
}

TEST(GgufConfigTest, AcceptsNeutralAndUnknownKeys) {
  TinyGguf gguf = tiny_gguf(tiny_config("llama"));
  gguf.set("llama.rope.scaling.type", std::string("linear"));  // as converters write for BitNet
  gguf.set("llama.rope.scaling.factor", 1.0f);
  gguf.set("llama.expert_count", uint32_t{0});
  gguf.set("llama.attention.causal", true);
  gguf.set("llama.attention.scale", 0.125f);
  gguf.set("llama.future_key", uint32_t{3});
  const auto parsed = config_of(gguf);
  BN_ASSERT_OK(parsed);
  ASSERT_EQ(parsed->notices.size(), 1u);
  EXPECT_NE(parsed->notices[0].find("llama.future_key"), std::string::npos);
}

}  // namespace
}  // namespace bitnet
