#include "model/config.h"
#include "model/tiny_model_test.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

Json packed_2b4t() {
  return Json::parse(R"({"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": 128256,
    "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30, "num_attention_heads": 20,
    "num_key_value_heads": 5, "hidden_act": "relu2", "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "max_position_embeddings": 4096, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
    "bos_token_id": 128000, "eos_token_id": 128001, "initializer_range": 0.02, "transformers_version": "4.52.0",
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                            "quantization_mode": "offline"}})");
}
Json falcon3() {
  return Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 131072,
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 18, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000042,
    "rope_scaling": null, "mlp_bias": false, "attention_bias": false, "attention_dropout": 0.0, "pretraining_tp": 1,
    "max_position_embeddings": 8192, "is_bitnet_config": true,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"}})");
}
Json one_bit_llm() {
  return Json::parse(R"({"architectures": ["BitnetForCausalLM"], "model_type": "llama", "vocab_size": 32002,
    "hidden_size": 3200, "intermediate_size": 8640, "num_hidden_layers": 26, "num_attention_heads": 32,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": null, "input_bits": 8,
    "weight_bits": 1, "max_position_embeddings": 2048, "tie_word_embeddings": true, "pad_token_id": 32000})");
}

TEST(HfConfigTest, PackedBitNet) {
  const auto parsed = config_from_hf(packed_2b4t(), "config.json");
  BN_ASSERT_OK(parsed);
  const ModelConfig& c = parsed->config;
  EXPECT_EQ(c.architecture, "bitnet-b1.58");
  EXPECT_EQ(std::tuple(c.n_layers, c.d_model, c.d_ff, c.n_heads, c.n_kv_heads, c.head_dim, c.rope_dim, c.vocab_size),
            std::tuple(30, 2560, 6912, 20, 5, 128, 128, 128256));
  EXPECT_EQ(std::tuple(c.rope_theta, c.rms_eps, c.n_ctx_train), std::tuple(500000.0, 1e-5f, 4096));
  EXPECT_TRUE(c.sub_norms && c.tied_head && c.ternary && !c.input_norms);
  EXPECT_TRUE(parsed->quantized && !parsed->online && !parsed->divide_scale);
  EXPECT_EQ(c.gate_activation, GateActivation::kRelu2);
  EXPECT_TRUE(parsed->notices.empty());
  EXPECT_EQ(count_parameters(c), 2412820480);  // 2B4T's published size
}

TEST(HfConfigTest, LlamaDividesItsScales) {
  const auto parsed = config_from_hf(falcon3(), "config.json");
  BN_ASSERT_OK(parsed);
  EXPECT_EQ(parsed->config.architecture, "llama");
  EXPECT_EQ(parsed->config.head_dim, 256);
  EXPECT_EQ(parsed->config.rope_theta, 1000042.0);
  EXPECT_TRUE(parsed->divide_scale && parsed->quantized && parsed->config.ternary);
  EXPECT_FALSE(parsed->config.tied_head || parsed->config.sub_norms);
  EXPECT_FALSE(parsed->is_converted("lm_head"));
  EXPECT_TRUE(parsed->is_converted("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(parsed->notices.empty());
}

TEST(HfConfigTest, OneBitLlmIsLatentWithoutSayingSo) {
  const auto parsed = config_from_hf(one_bit_llm(), "config.json");
  BN_ASSERT_OK(parsed);
  EXPECT_EQ(parsed->config.architecture, "bitnet");
  EXPECT_EQ(parsed->config.gate_activation, GateActivation::kSilu);
  EXPECT_EQ(parsed->config.head_dim, 100);
  EXPECT_EQ(parsed->config.n_kv_heads, 32);
  EXPECT_TRUE(parsed->quantized && parsed->online && parsed->config.sub_norms && parsed->config.tied_head);
  EXPECT_TRUE(parsed->notices.empty());
}

TEST(HfConfigTest, NewerRopeParametersAndInputNorms) {
  Json json = packed_2b4t();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 12345.0}};
  json["quantization_config"]["use_rms_norm"] = true;
  json["quantization_config"]["rms_norm_eps"] = 1e-4;
  json["quantization_config"]["quantization_mode"] = "online";
  const auto parsed = config_from_hf(json, "config.json");
  BN_ASSERT_OK(parsed);
  EXPECT_EQ(parsed->config.rope_theta, 12345.0);
  EXPECT_TRUE(parsed->config.input_norms && parsed->online);
  EXPECT_EQ(parsed->config.input_norm_eps, 1e-4f);
}

TEST(HfConfigTest, WhatIsWrittenReadsBack) {
  for (const Json& json : {packed_2b4t(), falcon3(), one_bit_llm()}) {
    const auto first = config_from_hf(json, "config.json");
    BN_ASSERT_OK(first);
    const auto second = config_from_hf(config_to_hf(first->config), "config.json");
    BN_ASSERT_OK(second);
    const ModelConfig &a = first->config, &b = second->config;
    EXPECT_EQ(a.architecture, b.architecture);
    EXPECT_EQ(std::tuple(a.n_layers, a.d_model, a.d_ff, a.n_heads, a.n_kv_heads, a.head_dim, a.rope_dim, a.vocab_size),
              std::tuple(b.n_layers, b.d_model, b.d_ff, b.n_heads, b.n_kv_heads, b.head_dim, b.rope_dim, b.vocab_size));
    EXPECT_EQ(std::tuple(a.rope_theta, a.rms_eps, a.n_ctx_train, a.ternary, a.tied_head),
              std::tuple(b.rope_theta, b.rms_eps, b.n_ctx_train, b.ternary, b.tied_head));
    EXPECT_FALSE(second->divide_scale || second->online);
    EXPECT_TRUE(second->notices.empty());
  }
}

TEST(HfConfigTest, RefusesOtherMathematics) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"rope_scaling", R"({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192})"},
      {"rope_scaling", R"({"type": "linear", "factor": 2.0})"},
      {"rope_parameters", R"({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0})"},
      {"attention_bias", "true"},
      {"mlp_bias", "true"},
      {"sliding_window", "4096"},
      {"layer_types", R"(["full_attention", "sliding_attention"])"},
      {"final_logit_softcapping", "30.0"},
      {"partial_rotary_factor", "0.5"},
      {"num_local_experts", "8"},
      {"attention_multiplier", "0.1"},
      {"logits_scaling", "8.0"},
      {"hidden_act", "\"gelu\""},
      {"weight_bits", "2"},
      {"architectures", "[\"GemmaForCausalLM\"]"},
      {"quantization_config", R"({"quant_method": "gptq"})"},
      {"quantization_config", R"({"quant_method": "bitnet", "linear_class": "trilinear"})"},
      {"quantization_config", R"({"quant_method": "bitnet", "quantization_mode": "online"})"},
  };
  for (const auto& [key, value] : cases) {
    SCOPED_TRACE(std::string(key) + " = " + value);
    Json json = falcon3();
    json[key] = Json::parse(value);
    expect_error(config_from_hf(json, "dir/config.json"), ErrorCode::kUnsupported, {"dir/config.json"});
  }
}

TEST(HfConfigTest, RefusesMalformedValues) {  // ST25
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"hidden_size", "\"2048\""},
      {"hidden_size", "-1"},
      {"hidden_size", "0"},
      {"hidden_size", "1099511627776"},
      {"hidden_size", "2048.5"},
      {"hidden_size", "null"},
      {"hidden_size", "[2048]"},
      {"num_hidden_layers", "1025"},
      {"num_attention_heads", "0"},
      {"num_key_value_heads", "3"},
      {"head_dim", "7"},
      {"head_dim", "9223372036854775807"},
      {"vocab_size", "4294967296"},
      {"rms_norm_eps", "0"},
      {"rms_norm_eps", "\"small\""},
      {"rope_theta", "-10000"},
      {"rope_scaling", "\"none\""},
      {"tie_word_embeddings", "1"},
      {"architectures", "[]"},
      {"architectures", "\"LlamaForCausalLM\""},
      {"quantization_config", "[]"},
      {"quantization_config", "{}"},
      {"quantization_config", R"({"quant_method": "bitnet", "modules_to_not_convert": "lm_head"})"},
  };
  for (const auto& [key, value] : cases) {
    SCOPED_TRACE(std::string(key) + " = " + value);
    Json json = falcon3();
    json[key] = Json::parse(value);
    expect_error(config_from_hf(json, "dir/config.json"), ErrorCode::kInvalidInput, {"dir/config.json"});
  }
  Json missing = falcon3();
  missing.erase("hidden_size");
  expect_error(config_from_hf(missing, "c.json"), ErrorCode::kInvalidInput, {"hidden_size"});
  Json indivisible = falcon3();
  indivisible.erase("head_dim");
  indivisible["hidden_size"] = 2047;
  expect_error(config_from_hf(indivisible, "c.json"), ErrorCode::kInvalidInput, {"2047", "head_dim"});
  expect_error(config_from_hf(Json::array(), "c.json"), ErrorCode::kInvalidInput, {"object"});
}

TEST(HfConfigTest, UnknownKeysAreNoted) {
  Json json = falcon3();
  json["mystery"] = 3;
  json["another"] = nullptr;
  const auto parsed = config_from_hf(json, "config.json");
  BN_ASSERT_OK(parsed);
  ASSERT_EQ(parsed->notices.size(), 1u);
  EXPECT_NE(parsed->notices[0].find("mystery"), std::string::npos);
}

}  // namespace
}  // namespace bitnet
