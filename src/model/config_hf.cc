#include "format/text.h"
#include "model/config.h"
#include "model/config_hf_keys.h"

#include <algorithm>
#include <string>
#include <utility>

namespace bitnet {
namespace {

using hf::bool_or, hf::changes_mathematics, hf::find, hf::is_neutral, hf::short_dump;

constexpr int64_t kAnyInt = INT64_MAX;

Result<int64_t> json_size(const Json& object, const char* key, const std::string& file) {
  return json_int(object, key, file, 1, kAnyInt);
}
Result<int64_t> size_or(const Json& object, const char* key, const std::string& file, int64_t fallback) {
  if (find(object, key) == nullptr) return fallback;
  return json_int(object, key, file, 1, kAnyInt);
}
Result<double> number_or(const Json& object, const char* key, const std::string& file, double fallback) {
  if (find(object, key) == nullptr) return fallback;
  return json_number(object, key, file);
}
Result<std::string> string_or(const Json& object, const char* key, const std::string& file, const char* fallback) {
  if (find(object, key) == nullptr) return std::string(fallback);
  return json_string(object, key, file);
}

// What BitNetForCausalLM, 1bitLLM's BitnetForCausalLM and LlamaForCausalLM have in common and where they differ.
struct Family {
  bool bitnet = false;
  bool always_online = false;  // 1bitLLM's own code ternarises latent weights without any quantization_config
  double default_theta = 10000.0;
  double default_eps = 1e-6;
};

Result<Family> find_family(const Json& json, const std::string& file) {
  std::string name;
  if (const Json* list = find(json, "architectures"); list != nullptr) {
    if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
      return invalid_input("{}: \"architectures\" is {}, expected a list of one name", file, short_dump(*list));
    }
    name = (*list)[0].get<std::string>();
  } else {
    BN_ASSIGN_OR_RETURN(const std::string type, json_string(json, "model_type", file));
    name = type == "bitnet" ? "BitNetForCausalLM" : type == "llama" ? "LlamaForCausalLM" : type;
  }
  if (name == "BitNetForCausalLM") return Family{true, false, 500000.0, 1e-5};
  if (name == "BitnetForCausalLM") return Family{true, true, 10000.0, 1e-6};
  if (name == "LlamaForCausalLM") return Family{};
  return unsupported(
      "{}: the architecture is {}; supported are BitNetForCausalLM, BitnetForCausalLM and LlamaForCausalLM", file,
      quote_name(name));
}

Status read_activation(const Json& json, const std::string& file, const Family& family, ModelConfig& c) {
  BN_ASSIGN_OR_RETURN(const std::string act,
                      string_or(json, "hidden_act", file, family.bitnet && !family.always_online ? "relu2" : "silu"));
  const bool relu2 = act == "relu2" && family.bitnet;
  if (!relu2 && act != "silu") {
    return unsupported("{}: \"hidden_act\" is {}; supported are silu{}", file, quote_name(act),
                       family.bitnet ? " and relu2" : " for Llama models");
  }
  c.gate_activation = relu2 ? GateActivation::kRelu2 : GateActivation::kSilu;
  c.architecture = !family.bitnet ? "llama" : relu2 ? "bitnet-b1.58" : "bitnet";
  return ok();
}

// Older files have "rope_theta" and "rope_scaling"; newer ones one object "rope_parameters" for both.
Status read_rope(const Json& json, const std::string& file, const Family& family, ModelConfig& c) {
  BN_ASSIGN_OR_RETURN(c.rope_theta, number_or(json, "rope_theta", file, family.default_theta));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = find(json, key);
    if (rope == nullptr) continue;
    if (!rope->is_object()) {
      return invalid_input("{}: \"{}\" is {}, expected an object or null", file, key, short_dump(*rope));
    }
    for (const auto& [name, value] : rope->items()) {
      const bool type_key = name == "rope_type" || name == "type";
      const bool neutral = value.is_null() || name == "rope_theta" || (type_key && value == "default") ||
                           ((name == "factor" || name == "partial_rotary_factor") && is_neutral(value, 1));
      if (!neutral) return changes_mathematics(file, key, *rope);
    }
    BN_ASSIGN_OR_RETURN(c.rope_theta, number_or(*rope, "rope_theta", file, c.rope_theta));
  }
  return ok();
}

Status read_shape(const Json& json, const std::string& file, const Family& family, ModelConfig& c) {
  BN_ASSIGN_OR_RETURN(c.n_layers, json_size(json, "num_hidden_layers", file));
  BN_ASSIGN_OR_RETURN(c.d_model, json_size(json, "hidden_size", file));
  BN_ASSIGN_OR_RETURN(c.d_ff, json_size(json, "intermediate_size", file));
  BN_ASSIGN_OR_RETURN(c.n_heads, json_size(json, "num_attention_heads", file));
  BN_ASSIGN_OR_RETURN(c.n_kv_heads, size_or(json, "num_key_value_heads", file, c.n_heads));
  BN_ASSIGN_OR_RETURN(c.vocab_size, json_size(json, "vocab_size", file));
  BN_ASSIGN_OR_RETURN(c.n_ctx_train, size_or(json, "max_position_embeddings", file, 2048));
  if (find(json, "head_dim") == nullptr && c.d_model % c.n_heads != 0) {
    return invalid_input(
        "{}: \"hidden_size\" {} is no multiple of \"num_attention_heads\" {}, and there is no "
        "\"head_dim\"",
        file, c.d_model, c.n_heads);
  }
  BN_ASSIGN_OR_RETURN(c.head_dim, size_or(json, "head_dim", file, std::max<int64_t>(1, c.d_model / c.n_heads)));
  c.rope_dim = c.head_dim;
  BN_ASSIGN_OR_RETURN(const double eps, number_or(json, "rms_norm_eps", file, family.default_eps));
  c.rms_eps = float(eps);
  BN_ASSIGN_OR_RETURN(c.tied_head, bool_or(json, "tie_word_embeddings", file, family.bitnet));
  return ok();
}

Status read_not_converted(const Json& quantization, const std::string& file, HfConfig& out) {
  const Json* list = find(quantization, "modules_to_not_convert");
  if (list == nullptr) return ok();
  if (!list->is_array()) {
    return invalid_input("{}: \"modules_to_not_convert\" is {}, expected a list of names", file, short_dump(*list));
  }
  for (const Json& module : *list) {
    if (!module.is_string() || module.get_ref<const std::string&>().empty()) {
      return invalid_input("{}: \"modules_to_not_convert\" holds {}, expected a name", file, short_dump(module));
    }
    out.not_converted.push_back(module.get<std::string>());
  }
  return ok();
}

Status read_quantization(const Json& json, const std::string& file, const Family& family, HfConfig& out) {
  out.quantized = out.online = family.always_online;
  out.config.ternary = family.bitnet;
  const Json* quantization = find(json, "quantization_config");
  if (quantization == nullptr) return ok();
  if (!quantization->is_object()) {
    return invalid_input("{}: \"quantization_config\" is {}, expected an object", file, short_dump(*quantization));
  }
  BN_ASSIGN_OR_RETURN(const std::string method, json_string(*quantization, "quant_method", file));
  if (method != "bitnet") {
    return unsupported("{}: \"quant_method\" is {}; only \"bitnet\" is supported", file, quote_name(method));
  }
  BN_ASSIGN_OR_RETURN(const std::string linear, string_or(*quantization, "linear_class", file, "bitlinear"));
  if (linear != "bitlinear" && linear != "autobitlinear") {
    return unsupported("{}: \"linear_class\" is {}; supported are bitlinear and autobitlinear", file,
                       quote_name(linear));
  }
  BN_ASSIGN_OR_RETURN(const std::string mode, string_or(*quantization, "quantization_mode", file, "offline"));
  if (mode != "offline" && !(mode == "online" && linear == "autobitlinear")) {
    return unsupported(
        "{}: \"quantization_mode\" is {} with linear class {}; supported are offline, and online with "
        "autobitlinear",
        file, quote_name(mode), linear);
  }
  out.quantized = true;
  out.online = mode == "online";
  out.divide_scale = linear == "bitlinear";
  out.config.ternary = true;
  BN_RETURN_IF_ERROR(read_not_converted(*quantization, file, out));
  BN_ASSIGN_OR_RETURN(out.config.input_norms, bool_or(*quantization, "use_rms_norm", file, false));
  BN_ASSIGN_OR_RETURN(const double eps, number_or(*quantization, "rms_norm_eps", file, 1e-6));
  out.config.input_norm_eps = float(eps);
  return ok();
}

}  // namespace

bool HfConfig::is_converted(std::string_view module) const {
  return std::none_of(not_converted.begin(), not_converted.end(),
                      [module](const std::string& name) { return module.find(name) != std::string_view::npos; });
}

Result<HfConfig> config_from_hf(const Json& json, const std::string& file) {
  if (!json.is_object()) return invalid_input("{}: holds {}, expected an object", file, short_dump(json));
  HfConfig out;
  ModelConfig& c = out.config;
  BN_ASSIGN_OR_RETURN(const Family family, find_family(json, file));
  BN_RETURN_IF_ERROR(hf::check_keys(json, file, out.notices));
  c.sub_norms = family.bitnet;
  BN_RETURN_IF_ERROR(read_activation(json, file, family, c));
  BN_RETURN_IF_ERROR(read_shape(json, file, family, c));
  BN_RETURN_IF_ERROR(read_rope(json, file, family, c));
  BN_RETURN_IF_ERROR(read_quantization(json, file, family, out));
  BN_RETURN_IF_ERROR(check_config(c, file));
  return out;
}

// The double that prints as the float does: 1e-05, not 9.999999747378752e-06.
static double shortest(float value) { return std::stod(fmt::format("{}", value)); }

Json config_to_hf(const ModelConfig& c) {
  const bool llama = c.architecture == "llama";
  Json json = {
      {"architectures", Json::array({llama ? "LlamaForCausalLM" : "BitNetForCausalLM"})},
      {"model_type", llama ? "llama" : "bitnet"},
      {"vocab_size", c.vocab_size},
      {"hidden_size", c.d_model},
      {"intermediate_size", c.d_ff},
      {"num_hidden_layers", c.n_layers},
      {"num_attention_heads", c.n_heads},
      {"num_key_value_heads", c.n_kv_heads},
      {"head_dim", c.head_dim},
      {"hidden_act", c.gate_activation == GateActivation::kRelu2 ? "relu2" : "silu"},
      {"rms_norm_eps", shortest(c.rms_eps)},
      {"rope_theta", c.rope_theta},
      {"max_position_embeddings", c.n_ctx_train},
      {"tie_word_embeddings", c.tied_head},
      {"attention_bias", false},
  };
  if (c.ternary) {
    Json quantization = {
        {"quant_method", "bitnet"}, {"linear_class", "autobitlinear"}, {"quantization_mode", "offline"}};
    if (!c.tied_head) quantization["modules_to_not_convert"] = Json::array({"lm_head"});
    if (c.input_norms) {
      quantization["use_rms_norm"] = true;
      quantization["rms_norm_eps"] = shortest(c.input_norm_eps);
    }
    json["quantization_config"] = std::move(quantization);
  }
  return json;
}

}  // namespace bitnet
