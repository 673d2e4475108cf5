#include "format/text.h"
#include "model/config.h"
#include "model/unknown_names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>
#include <variant>

namespace bitnet {
namespace {

// Keys of ours, for what GGUF has no word for.
constexpr const char* kInputNormEpsKey = "bitnet.input_norm.rms_epsilon";
constexpr const char* kQuantizedInputsKey = "bitnet.quantized_inputs";

constexpr uint64_t kAnyInt = uint64_t(INT64_MAX);

// What a key must hold for the graph to be right without it. Names follow "<architecture>.".
struct MathKey {
  std::string_view name;
  double neutral;
};
constexpr std::array kMathKeys = std::to_array<MathKey>({
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"expert_shared_count", 0},
    {"expert_feed_forward_length", 0},
    {"expert_shared_feed_forward_length", 0},
    {"leading_dense_block_count", 0},
    {"nextn_predict_layers", 0},
    {"logit_scale", 1},
    {"embedding_scale", 1},
    {"residual_scale", 1},
    {"attention.output_scale", 1},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"router_logit_softcapping", 0},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.sliding_window", 0},
    {"attention.chunk_size", 0},
    {"attention.temperature_length", 0},
    {"attention.temperature_scale", 0},
    {"attention.causal", 1},
    {"attention.q_lora_rank", 0},
    {"attention.kv_lora_rank", 0},
    {"attention.group_norm_groups", 0},
    {"attention.relative_buckets_count", 0},
    {"use_parallel_residual", 0},
    {"parallel_residual", 0},
    {"swin_norm", 0},
    {"pooling_type", 0},
    {"rope.scale_linear", 1},
    {"rope.scaling.factor", 1},
    {"rope.scaling.attn_factor", 1},
    {"rope.scaling.yarn_log_multiplier", 0},
    {"rope.freq_base_swa", 0},
});

// Keys that the graph reads, or that say nothing about it.
constexpr std::array kKnownKeys = std::to_array<std::string_view>({
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
});

struct Architecture {
  std::string_view name;
  bool sub_norms;
  GateActivation gate;
  bool interleaved_qk;
};
constexpr std::array kArchitectures = std::to_array<Architecture>({
    {"bitnet-b1.58", true, GateActivation::kRelu2, false},
    {"bitnet-25", true, GateActivation::kRelu2, false},
    {"bitnet", true, GateActivation::kSilu, false},
    {"llama", false, GateActivation::kSilu, true},
});

Result<const Architecture*> find_architecture(const GgufMetadata& metadata) {
  BN_ASSIGN_OR_RETURN(const std::string name, metadata.get_string("general.architecture"));
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  return unsupported("{}: general.architecture is {}; supported are bitnet-b1.58, bitnet-25, bitnet and llama",
                     metadata.file_name, quote_name(name));
}

// Numbers and booleans as double; nothing for strings and arrays.
std::optional<double> as_number(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> std::optional<double> {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(v)>>) return double(v);
        return std::nullopt;
      },
      value);
}

Status check_math_key(const GgufMetadata& metadata, const std::string& key, const GgufValue& value, double neutral) {
  const auto number = as_number(value);
  if (number && *number == neutral) return ok();
  if (!number) {
    return unsupported("{}: {} ({}) changes the model's mathematics in a way that is not supported", metadata.file_name,
                       key, gguf_type_name(value));
  }
  return unsupported("{}: {} is {}, which changes the model's mathematics; only {} is supported", metadata.file_name,
                     key, *number, neutral);
}

Status check_rope_scaling(const GgufMetadata& metadata, const std::string& prefix) {
  // Converters write "linear" for BitNet with a factor of 1, which kMathKeys holds it to: no scaling at all.
  constexpr std::array<std::string_view, 2> kUnscaled = {"none", "linear"};
  BN_ASSIGN_OR_RETURN(const std::string type, metadata.get_string(prefix + "rope.scaling.type", "none"));
  if (std::find(kUnscaled.begin(), kUnscaled.end(), type) != kUnscaled.end()) return ok();
  return unsupported("{}: {}rope.scaling.type is {}; scaled rotary embeddings are not supported", metadata.file_name,
                     prefix, quote_name(type));
}

Status check_attention_scale(const GgufMetadata& metadata, const std::string& prefix, int64_t head_dim) {
  const double usual = 1.0 / std::sqrt(double(head_dim));
  BN_ASSIGN_OR_RETURN(const double scale, metadata.get_float(prefix + "attention.scale", 0.0));
  if (scale == 0.0 || std::abs(scale - usual) <= 1e-6 * usual) return ok();
  return unsupported("{}: {}attention.scale is {}; only 1 / sqrt(head dimension) = {} is supported", metadata.file_name,
                     prefix, scale, usual);
}

// Refuses what would change the mathematics and lists the architecture's other unknown keys.
Status check_keys(const GgufMetadata& metadata, const std::string& prefix, std::vector<std::string>& notices) {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : metadata.entries()) {
    if (key.rfind(prefix, 0) != 0) continue;
    const std::string_view name = std::string_view(key).substr(prefix.size());
    const auto math = std::find_if(kMathKeys.begin(), kMathKeys.end(),
                                   [name](const MathKey& candidate) { return candidate.name == name; });
    if (math != kMathKeys.end()) {
      BN_RETURN_IF_ERROR(check_math_key(metadata, key, value, math->neutral));
      continue;
    }
    const bool ours = key == kInputNormEpsKey || key == kQuantizedInputsKey || key.rfind("bitnet.ternary.", 0) == 0 ||
                      key.rfind("bitnet.checksum.", 0) == 0;
    const bool known = std::find(kKnownKeys.begin(), kKnownKeys.end(), name) != kKnownKeys.end();
    if (!ours && !known) unknown.push_back(key);
  }
  note_unknown("metadata key", unknown, notices);
  return check_rope_scaling(metadata, prefix);
}

// A count that Status check_config bounds; here it only has to be a whole number.
Result<int64_t> get_size(const GgufMetadata& metadata, const std::string& key,
                         std::optional<uint64_t> fallback = std::nullopt) {
  BN_ASSIGN_OR_RETURN(const uint64_t value, metadata.get_uint(key, 0, kAnyInt, fallback));
  return int64_t(value);
}

Result<int64_t> read_head_dim(const GgufMetadata& metadata, const std::string& prefix, const ModelConfig& c) {
  const std::string key = prefix + "attention.key_length", value_key = prefix + "attention.value_length";
  if (!metadata.contains(key)) {
    if (c.n_heads < 1 || c.d_model % c.n_heads != 0) {
      return invalid_input("{}: an embedding length of {} is no multiple of {} heads, and {} is not there",
                           metadata.file_name, c.d_model, c.n_heads, key);
    }
    return c.d_model / c.n_heads;
  }
  BN_ASSIGN_OR_RETURN(const int64_t k, get_size(metadata, key));
  BN_ASSIGN_OR_RETURN(const int64_t v, get_size(metadata, value_key, uint64_t(k)));
  if (k != v)
    return unsupported("{}: {} is {} and {} is {}; they must agree", metadata.file_name, key, k, value_key, v);
  return k;
}

Status read_shape(const GgufFile& file, const std::string& prefix, ModelConfig& c) {
  const GgufMetadata& metadata = file.metadata();
  BN_ASSIGN_OR_RETURN(c.n_layers, get_size(metadata, prefix + "block_count"));
  BN_ASSIGN_OR_RETURN(c.d_model, get_size(metadata, prefix + "embedding_length"));
  BN_ASSIGN_OR_RETURN(c.d_ff, get_size(metadata, prefix + "feed_forward_length"));
  BN_ASSIGN_OR_RETURN(c.n_heads, get_size(metadata, prefix + "attention.head_count"));
  BN_ASSIGN_OR_RETURN(c.n_kv_heads, get_size(metadata, prefix + "attention.head_count_kv", uint64_t(c.n_heads)));
  BN_ASSIGN_OR_RETURN(c.n_ctx_train, get_size(metadata, prefix + "context_length"));
  BN_ASSIGN_OR_RETURN(c.head_dim, read_head_dim(metadata, prefix, c));
  BN_ASSIGN_OR_RETURN(c.rope_dim, get_size(metadata, prefix + "rope.dimension_count", uint64_t(c.head_dim)));
  BN_ASSIGN_OR_RETURN(c.rope_theta, metadata.get_float(prefix + "rope.freq_base", 10000.0));
  BN_ASSIGN_OR_RETURN(const double eps, metadata.get_float(prefix + "attention.layer_norm_rms_epsilon"));
  c.rms_eps = float(eps);
  const StoredTensor* embedding = file.find("token_embd.weight");
  const bool has_rows = embedding != nullptr && embedding->shape.size() == 2;
  if (!has_rows && !metadata.contains(prefix + "vocab_size")) {
    return invalid_input("{}: neither {}vocab_size nor a matrix token_embd.weight is there", metadata.file_name,
                         prefix);
  }
  BN_ASSIGN_OR_RETURN(
      c.vocab_size, get_size(metadata, prefix + "vocab_size", has_rows ? uint64_t(embedding->shape[0]) : uint64_t{0}));
  return ok();
}

// "blk.N.<a projection>.weight"
bool is_block_linear(std::string_view name) {
  constexpr std::array kLinears =
      std::to_array<std::string_view>({"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"});
  if (name.rfind("blk.", 0) != 0 || !name.ends_with(".weight")) return false;
  const size_t dot = name.find('.', 4);
  const std::string_view rest = name.substr(dot + 1, name.size() - dot - 1 - std::string_view(".weight").size());
  return std::find(kLinears.begin(), kLinears.end(), rest) != kLinears.end();
}

bool has_ternary_linear(const GgufFile& file) {
  return std::any_of(file.tensors().begin(), file.tensors().end(), [](const StoredTensor& tensor) {
    return is_ternary(tensor.dtype) && is_block_linear(tensor.name);
  });
}

}  // namespace

bool interleaves_qk(std::string_view architecture) {
  const auto found = std::find_if(kArchitectures.begin(), kArchitectures.end(),
                                  [architecture](const Architecture& known) { return known.name == architecture; });
  return found != kArchitectures.end() && found->interleaved_qk;
}

Result<GgufConfig> config_from_gguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  BN_ASSIGN_OR_RETURN(const Architecture* architecture, find_architecture(metadata));
  GgufConfig out;
  ModelConfig& c = out.config;
  c.architecture = architecture->name;
  c.sub_norms = architecture->sub_norms;
  c.gate_activation = architecture->gate;
  const std::string prefix = c.architecture + ".";
  BN_RETURN_IF_ERROR(check_keys(metadata, prefix, out.notices));
  BN_ASSIGN_OR_RETURN(c.name, metadata.get_string("general.name", std::string()));
  BN_RETURN_IF_ERROR(read_shape(file, prefix, c));
  c.tied_head = file.find("output.weight") == nullptr;
  c.input_norms = file.find("blk.0.attn_q_norm_in.weight") != nullptr;
  BN_ASSIGN_OR_RETURN(const double input_eps, metadata.get_float(kInputNormEpsKey, double(c.input_norm_eps)));
  c.input_norm_eps = float(input_eps);
  const bool ternary = c.architecture != "llama" || has_ternary_linear(file);
  BN_ASSIGN_OR_RETURN(c.ternary, metadata.get_bool(kQuantizedInputsKey, ternary));
  BN_RETURN_IF_ERROR(check_config(c, metadata.file_name));
  BN_RETURN_IF_ERROR(check_attention_scale(metadata, prefix, c.head_dim));
  return out;
}

Status config_to_gguf(const ModelConfig& c, GgufWriter& writer) {
  const std::string prefix = c.architecture + ".";
  const auto add_size = [&](const char* name, int64_t value) -> Status {
    return writer.add_metadata(prefix + name, uint32_t(value));
  };
  BN_RETURN_IF_ERROR(writer.add_metadata("general.architecture", c.architecture));
  if (!c.name.empty()) BN_RETURN_IF_ERROR(writer.add_metadata("general.name", c.name));
  BN_RETURN_IF_ERROR(add_size("vocab_size", c.vocab_size));
  BN_RETURN_IF_ERROR(add_size("context_length", c.n_ctx_train));
  BN_RETURN_IF_ERROR(add_size("embedding_length", c.d_model));
  BN_RETURN_IF_ERROR(add_size("block_count", c.n_layers));
  BN_RETURN_IF_ERROR(add_size("feed_forward_length", c.d_ff));
  BN_RETURN_IF_ERROR(add_size("attention.head_count", c.n_heads));
  BN_RETURN_IF_ERROR(add_size("attention.head_count_kv", c.n_kv_heads));
  BN_RETURN_IF_ERROR(add_size("attention.key_length", c.head_dim));
  BN_RETURN_IF_ERROR(add_size("attention.value_length", c.head_dim));
  BN_RETURN_IF_ERROR(add_size("rope.dimension_count", c.rope_dim));
  BN_RETURN_IF_ERROR(writer.add_metadata(prefix + "rope.freq_base", float(c.rope_theta)));
  BN_RETURN_IF_ERROR(writer.add_metadata(prefix + "attention.layer_norm_rms_epsilon", c.rms_eps));
  if (c.input_norms) BN_RETURN_IF_ERROR(writer.add_metadata(kInputNormEpsKey, c.input_norm_eps));
  // A llama file tells by its tensor types whether inputs are quantised, unless its weights became floats.
  if (c.architecture == "llama") BN_RETURN_IF_ERROR(writer.add_metadata(kQuantizedInputsKey, c.ternary));
  return ok();
}

}  // namespace bitnet
