#include "model/checkpoint_state.h"
#include "model/unknown_names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_set>

namespace bitnet {
namespace {

using State = Checkpoint::State;

Status check_type(const State& state, const WeightSpec& spec, const LocatedTensor& tensor) {
  const DType type = tensor.tensor->dtype;
  switch (spec.kind) {
    case WeightKind::kVector:
      if (is_float_type(type)) return ok();
      return invalid_input("{} has type {}, expected F32, F16 or BF16", state.label(tensor), dtype_info(type).name);
    case WeightKind::kTable:
      if (is_readable_type(type)) return ok();
      return unsupported(
          "{} has type {}; an embedding or output table can be F32, F16, BF16 or a type of ggml's blocks",
          state.label(tensor), dtype_info(type).name);
    case WeightKind::kLinear:
      if (is_readable_type(type) || state.is_packed(*tensor.tensor) || state.is_tiled(*tensor.tensor)) return ok();
      if (state.is_gguf() ? is_ternary(type) : type == DType::kU8) return ok();
      return unsupported("{} has type {}, which a layer's weight cannot have", state.label(tensor),
                         dtype_info(type).name);
  }
  return ok();
}

Status check_weight(const State& state, const WeightSpec& spec) {
  const LocatedTensor tensor = state.find_weight(spec);
  if (!tensor) {
    return invalid_input("{}: tensor {} {} is missing", state.path, state.is_gguf() ? spec.gguf_name : spec.hf_name,
                         shape_string(spec.shape));
  }
  BN_RETURN_IF_ERROR(check_type(state, spec, tensor));
  if (spec.kind == WeightKind::kLinear && state.is_packed(*tensor.tensor)) return ok();  // tells its shape itself
  if (state.is_tiled(*tensor.tensor)) return ok();  // a part of a tensor whose shape was looked at
  const bool packed = tensor.tensor->dtype == DType::kU8;
  const Shape expected = packed ? Shape{(spec.shape[0] + 3) / 4, spec.shape[1]} : spec.shape;
  if (tensor.tensor->shape == expected) return ok();
  return invalid_input("{} has shape {}, expected {}{}", state.label(tensor), shape_string(tensor.tensor->shape),
                       shape_string(expected),
                       packed ? fmt::format(": four rows of {} a packed row", shape_string(spec.shape)) : "");
}

// A packed weight and its scale come together; a float weight has none.
Status check_scale(const State& state, const WeightSpec& spec) {
  const LocatedTensor weight = state.find_weight(spec), scale = state.find_scale(spec);
  if (scale) {
    const auto count = element_count(scale.tensor->shape);
    if (!count || *count != 1 || !is_float_type(scale.tensor->dtype)) {
      return invalid_input("{} is {} {}, expected one float", state.label(scale), dtype_info(scale.tensor->dtype).name,
                           shape_string(scale.tensor->shape));
    }
  }
  if (!state.folder) return ok();
  const bool packed = weight.tensor->dtype == DType::kU8;
  if (packed && !scale) {
    return invalid_input("{} is packed ternary, but its scale {} is missing", state.label(weight), spec.hf_scale_name);
  }
  if (!packed && scale) {
    return unsupported("{} is {} and has a scale {} beside it; only packed weights (U8) have one", state.label(weight),
                       dtype_info(weight.tensor->dtype).name, spec.hf_scale_name);
  }
  if (packed && (!state.hf.quantized || state.hf.online || !state.is_converted(spec))) {
    return invalid_input("{} is packed ternary (U8), but config.json {}", state.label(weight),
                         !state.hf.quantized ? "has no \"quantization_config\""
                         : state.hf.online   ? "says \"quantization_mode\": \"online\", which means float weights"
                                             : "lists it in \"modules_to_not_convert\"");
  }
  return ok();
}

// "blk.12.x" with prefix "blk." is 12; -1 when it is no such name.
int64_t layer_of(std::string_view name, std::string_view prefix) {
  if (name.rfind(prefix, 0) != 0) return -1;
  int64_t layer = -1;
  for (size_t i = prefix.size(); i < name.size() && name[i] >= '0' && name[i] <= '9' && layer < 1000000; ++i) {
    layer = std::max<int64_t>(layer, 0) * 10 + (name[i] - '0');
  }
  return layer;
}

// Why a tensor that no spec wants must not be ignored, or null. Biases, other norms, experts and frequency factors take
// part in the mathematics of the models that have them.
const char* why_needed(const State& state, std::string_view name) {
  if (layer_of(name, state.is_gguf() ? "blk." : "model.layers.") >= state.config.n_layers) {
    return "it belongs to a layer beyond the number of layers that the file states";
  }
  if (name.ends_with(".bias")) return "biases are not supported";
  struct Part {
    std::string_view text;
    const char* why;
  };
  constexpr std::array kParts = std::to_array<Part>({
      {"rope_freqs.weight", "rotary frequency factors (scaled rotary embeddings) are not supported"},
      {"rope_factors_", "rotary frequency factors (scaled rotary embeddings) are not supported"},
      {"_exps.", "mixtures of experts are not supported"},
      {"_shexp.", "mixtures of experts are not supported"},
      {"ffn_gate_inp", "mixtures of experts are not supported"},
      {".experts.", "mixtures of experts are not supported"},
      {".mlp.gate.weight", "mixtures of experts are not supported"},
      {"attn_sinks", "attention sinks are not supported"},
      {".sinks", "attention sinks are not supported"},
      {".input_scale", "static activation scales are not supported"},
      {"attn_qkv", "fused projections are not supported"},
      {"qkv_proj", "fused projections are not supported"},
      {"gate_up_proj", "fused projections are not supported"},
      {"q_norm", "the graph of this architecture has no such norm"},
      {"k_norm", "the graph of this architecture has no such norm"},
      {"sub_norm", "the graph of this architecture has no such norm"},
      {"inner_attn_ln", "the graph of this architecture has no such norm"},
      {"ffn_layernorm", "the graph of this architecture has no such norm"},
      {"post_attention_norm", "the graph of this architecture has no such norm"},
      {"post_ffw_norm", "the graph of this architecture has no such norm"},
      {"feedforward_layernorm", "the graph of this architecture has no such norm"},
      {"attn_norm_2", "the graph of this architecture has no such norm"},
      {"_norm_in.weight", "norms in front of single linears must be there for all of them"},
      {".rms_norm.weight", "\"use_rms_norm\" is not set"},
  });
  for (const Part& part : kParts) {
    if (name.find(part.text) != std::string_view::npos) return part.why;
  }
  return nullptr;
}

// Buffers that older code saved, and the head that a tied model has twice.
const char* why_harmless(const State& state, std::string_view name) {
  if (name.ends_with("rotary_emb.inv_freq")) return "the frequencies follow from the config";
  if (name == "lm_head.weight" && state.config.tied_head) return "the config ties the head to the embedding";
  return nullptr;
}

Status check_others(const State& state, const std::unordered_set<const StoredTensor*>& used,
                    std::vector<std::string>& notices) {
  std::vector<std::string> unknown;
  const auto check = [&](const LocatedTensor& tensor) -> Status {
    const std::string& name = tensor.tensor->name;
    if (used.count(tensor.tensor) != 0 || why_harmless(state, name) != nullptr) return ok();
    if (const char* why = why_needed(state, name); why != nullptr) {
      return unsupported("{} cannot be ignored: {}", state.label(tensor), why);
    }
    unknown.push_back(name);
    return ok();
  };
  if (state.is_gguf()) {
    for (const StoredTensor& tensor : state.gguf->tensors()) BN_RETURN_IF_ERROR(check({&tensor, nullptr}));
  } else if (state.folder) {
    for (const auto& entry : state.folder->tensors()) BN_RETURN_IF_ERROR(check({entry.tensor, entry.file}));
  }
  note_unknown("tensor", unknown, notices);
  return ok();
}

}  // namespace

Status check_tensors(const State& state, std::vector<std::string>& notices) {
  std::unordered_set<const StoredTensor*> used;
  for (const WeightSpec& spec : state.weights) {
    BN_RETURN_IF_ERROR(check_weight(state, spec));
    used.insert(state.find_weight(spec).tensor);
    if (spec.kind != WeightKind::kLinear) continue;
    BN_RETURN_IF_ERROR(check_scale(state, spec));
    if (const LocatedTensor scale = state.find_scale(spec)) used.insert(scale.tensor);
    if (state.config.input_norms && !state.is_converted(spec)) {
      return unsupported("{}: {} stays float while \"use_rms_norm\" is set; that combination is not supported",
                         state.path, spec.hf_name);
    }
  }
  return check_others(state, used, notices);
}

Status check_vocabulary(const State& state, std::vector<std::string>& notices) {
  const int64_t n_tokens = int64_t(state.vocabulary->tokens.size()), n_rows = state.config.vocab_size;
  // Embeddings are padded by a few rows to a round number, never by most of them.
  if (n_tokens > n_rows || n_tokens < n_rows / 2) {
    return invalid_input("{}: the vocabulary has {} tokens, but the embedding has {} rows", state.path, n_tokens,
                         n_rows);
  }
  if (n_tokens < n_rows) {
    notices.push_back(
        fmt::format("the vocabulary has {} tokens and the embedding {} rows; the rest is padding", n_tokens, n_rows));
  }
  return ok();
}

Result<std::vector<float>> read_exact_scales(const GgufFile& file) {
  std::vector<float> scales;
  BN_ASSIGN_OR_RETURN(const std::vector<float>* table, file.metadata().get_array<float>(kExactScalesKey));
  if (table == nullptr) return scales;
  scales.resize(file.tensors().size());
  size_t n_ternary = 0;
  for (size_t i = 0; i < scales.size(); ++i) {
    if (is_ternary(file.tensors()[i].dtype) && n_ternary++ < table->size()) scales[i] = (*table)[n_ternary - 1];
  }
  if (n_ternary != table->size()) {
    return invalid_input("{}: metadata key {} has {} entries, expected one for each of {} ternary tensors", file.name(),
                         kExactScalesKey, table->size(), n_ternary);
  }
  for (size_t i = 0; i < table->size(); ++i) {
    if ((*table)[i] != 0.0f && !(std::isnormal((*table)[i]) && (*table)[i] > 0)) {
      return invalid_input("{}: metadata key {}: entry {} is {}, expected a finite number, 0 or above", file.name(),
                           kExactScalesKey, i, (*table)[i]);
    }
  }
  return scales;
}

bool is_float_type(DType type) { return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16; }

bool has_products(DType type) {
  return is_float_type(type) || type == DType::kQ4_0 || type == DType::kQ8_0 || type == DType::kQ4_K ||
         type == DType::kQ6_K;
}

bool is_readable_type(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ5_K:
    case DType::kQ2_0:
    case DType::kQ1_0:
    case DType::kTQ1_0:
    case DType::kTQ2_0:
    case DType::kIQ1_BN:
    case DType::kIQ2_BN: return true;
    default: return has_products(type);
  }
}

}  // namespace bitnet
