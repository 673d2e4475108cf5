#include "model/config_hf_keys.h"

#include "model/unknown_names.h"

#include <algorithm>
#include <array>

namespace bitnet::hf {
namespace {

// Keys of config.json that are neutral only with one value (or null, or left out); anything else means a graph that we
// do not have. Booleans count as 0 and 1.
struct MathKey {
  const char* name;
  double neutral;
};
constexpr std::array kMathKeys = std::to_array<MathKey>({
    {"attention_bias", 0},
    {"mlp_bias", 0},
    {"qkv_bias", 0},
    {"use_bias", 0},
    {"bias", 0},
    {"lm_head_bias", 0},
    {"partial_rotary_factor", 1},
    {"rotary_pct", 1},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"logit_scale", 1},
    {"logits_scaling", 1},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"scale_emb", 1},
    {"clip_qkv", 0},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"n_routed_experts", 0},
    {"num_experts_per_tok", 0},
    {"use_qk_norm", 0},
    {"qk_norm", 0},
    {"alibi", 0},
    {"parallel_attn", 0},
    {"use_parallel_residual", 0},
    {"attention_chunk_size", 0},
    {"add_cross_attention", 0},
    {"is_encoder_decoder", 0},
    {"weight_bits", 1},  // 1bitLLM's code: 1 means ternary
    {"input_bits", 8},
});
// The same, but any value other than null changes the graph.
constexpr std::array kAbsentKeys = std::to_array<const char*>({
    "attention_multiplier",
    "query_pre_attn_scalar",
    "scale_depth",
    "dim_model_base",
    "no_rope_layers",
    "q_lora_rank",
    "kv_lora_rank",
    "vision_config",
    "text_config",
});

// Keys that are read elsewhere in this file, or say nothing about the mathematics of inference.
constexpr std::array kKnownKeys = std::to_array<const char*>({
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_dropout",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "is_bitnet_config",
    "is_decoder",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "pretraining_tp",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
});

template <size_t N>
bool contains(const std::array<const char*, N>& names, const std::string& name) {
  return std::any_of(names.begin(), names.end(), [&name](const char* candidate) { return name == candidate; });
}

Status check_sliding_window(const Json& json, const std::string& file) {
  const Json* window = find(json, "sliding_window");
  BN_ASSIGN_OR_RETURN(const bool used, bool_or(json, "use_sliding_window", file, true));
  if (window != nullptr && used && !is_neutral(*window, 0)) return changes_mathematics(file, "sliding_window", *window);
  const Json* types = find(json, "layer_types");
  if (types == nullptr) return ok();
  const bool full = types->is_array() && std::all_of(types->begin(), types->end(),
                                                     [](const Json& type) { return type == "full_attention"; });
  if (!full) return changes_mathematics(file, "layer_types", *types);
  return ok();
}

}  // namespace

const Json* find(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string short_dump(const Json& value) {
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

bool is_neutral(const Json& value, double neutral) {
  if (value.is_boolean()) return double(value.get<bool>()) == neutral;
  return value.is_number() && value.get<double>() == neutral;
}

Result<bool> bool_or(const Json& object, const char* key, const std::string& file, bool fallback) {
  const Json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean())
    return invalid_input("{}: \"{}\" is {}, expected true or false", file, key, short_dump(*value));
  return value->get<bool>();
}

Error changes_mathematics(const std::string& file, const std::string& key, const Json& value) {
  return unsupported("{}: \"{}\" is {}, which changes the model's mathematics in a way that is not supported", file,
                     key, short_dump(value));
}

Status check_keys(const Json& json, const std::string& file, std::vector<std::string>& notices) {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : json.items()) {
    if (value.is_null()) continue;
    const auto math = std::find_if(kMathKeys.begin(), kMathKeys.end(),
                                   [name = key](const MathKey& candidate) { return name == candidate.name; });
    if (math != kMathKeys.end()) {
      if (!is_neutral(value, math->neutral)) return changes_mathematics(file, key, value);
    } else if (contains(kAbsentKeys, key)) {
      return changes_mathematics(file, key, value);
    } else if (!contains(kKnownKeys, key)) {
      unknown.push_back(key);
    }
  }
  note_unknown("config.json key", unknown, notices);
  return check_sliding_window(json, file);
}

}  // namespace bitnet::hf
