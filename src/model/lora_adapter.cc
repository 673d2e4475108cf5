#include "model/lora_adapter.h"

#include "format/json.h"
#include "format/safetensors.h"
#include "model/checkpoint_state.h"
#include "quant/blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <system_error>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr std::array kTargets = std::to_array<LoraTarget>({{WeightRole::kQ, "q", "q_proj"},
                                                           {WeightRole::kK, "k", "k_proj"},
                                                           {WeightRole::kV, "v", "v_proj"},
                                                           {WeightRole::kO, "o", "o_proj"},
                                                           {WeightRole::kGate, "gate", "gate_proj"},
                                                           {WeightRole::kUp, "up", "up_proj"},
                                                           {WeightRole::kDown, "down", "down_proj"}});

const LoraTarget* find_target(std::string_view name) {
  const auto found =
      std::find_if(kTargets.begin(), kTargets.end(), [&](const auto& t) { return t.name == name || t.module == name; });
  return found == kTargets.end() ? nullptr : &*found;
}

// "base_model.model.model.layers.0.self_attn.q_proj"
std::string module_of(const WeightSpec& linear) {
  return "base_model.model." + linear.hf_name.substr(0, linear.hf_name.rfind('.'));
}

// Settings of PEFT's LoraConfig that make another function of the same tensors, unless they have these values.
Status check_settings(const Json& config, const std::string& file) {
  const auto is_off = [](const Json& value) {
    return value.is_null() || value == false || value == "none" ||
           ((value.is_object() || value.is_array()) && value.empty());
  };
  for (const char* key :
       {"use_dora", "use_qalora", "use_bdlora", "lora_bias", "bias", "fan_in_fan_out", "alpha_pattern", "rank_pattern",
        "modules_to_save", "layer_replication", "trainable_token_indices", "megatron_config", "alora_invocation_tokens",
        "target_parameters"}) {
    const auto found = config.find(key);
    if (found == config.end() || is_off(*found)) continue;
    return unsupported("{}: \"{}\" is {}; adapters with it are not read", file, key, found->dump());
  }
  return ok();
}

Status check_targets(const Json& config, const std::string& file) {
  const auto found = config.find("target_modules");
  if (found == config.end() || !found->is_array()) return ok();  // a pattern: the tensors' names tell
  for (const Json& module : *found) {
    const std::string name = module.is_string() ? module.get<std::string>() : module.dump();
    if (find_target(name.substr(name.rfind('.') + 1)) != nullptr) continue;
    return unsupported(
        "{}: \"target_modules\" names {}; adapters are read for q_proj, k_proj, v_proj, o_proj, "
        "gate_proj, up_proj and down_proj",
        file, name);
  }
  return ok();
}

// Rank and scale.
Status read_config(const std::string& file, LoraAdapter& adapter, int64_t max_rank) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(file, uint64_t{1} << 20));
  BN_ASSIGN_OR_RETURN(const Json config, parse_json(text, file));
  if (!config.is_object()) return invalid_input("{}: holds {}, expected an object", file, config.type_name());
  BN_ASSIGN_OR_RETURN(const std::string type, json_string(config, "peft_type", file));
  if (type != "LORA") return unsupported("{}: \"peft_type\" is {}; adapters of type LORA are read", file, type);
  BN_RETURN_IF_ERROR(check_settings(config, file));
  BN_RETURN_IF_ERROR(check_targets(config, file));
  BN_ASSIGN_OR_RETURN(adapter.rank, json_int(config, "r", file, 1, max_rank));
  BN_ASSIGN_OR_RETURN(const double alpha, json_number(config, "lora_alpha", file));
  const auto rslora = config.find("use_rslora");
  const bool by_root = rslora != config.end() && *rslora == true;
  adapter.scale = alpha / (by_root ? std::sqrt(double(adapter.rank)) : double(adapter.rank));
  if (std::isfinite(float(adapter.scale))) return ok();
  return invalid_input("{}: \"lora_alpha\" is {}, expected a finite number", file, alpha);
}

Result<std::vector<float>> read_values(const SafetensorsFile& file, const StoredTensor& tensor, const Shape& shape) {
  if (tensor.shape != shape) {
    return invalid_input("{}: tensor {} is {}, expected {}", file.name(), tensor.name, shape_string(tensor.shape),
                         shape_string(shape));
  }
  if (!is_float_type(tensor.dtype)) {
    return unsupported("{}: tensor {} is {}, expected F32, F16 or BF16", file.name(), tensor.name,
                       dtype_info(tensor.dtype).name);
  }
  BN_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, file.read(tensor));
  std::vector<float> values(size_t(shape[0] * shape[1]));
  BN_RETURN_IF_ERROR(dequantize(tensor.dtype, bytes, int64_t(values.size()), values.data()));
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad == values.end()) return values;
  const int64_t at = bad - values.begin();
  return invalid_input("{}: tensor {} holds {} in row {}, column {}", file.name(), tensor.name, *bad, at / shape[1],
                       at % shape[1]);
}

Status read_pairs(const SafetensorsFile& file, const Checkpoint& base, LoraAdapter& adapter) {
  std::vector<std::string> known;
  for (const WeightSpec& spec : base.weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    const StoredTensor *const a = file.find(lora_a_name(spec)), *const b = file.find(lora_b_name(spec));
    if (a == nullptr && b == nullptr) continue;
    if (a == nullptr || b == nullptr) {
      return invalid_input("{}: tensor {} has no {} beside it", file.name(), (a != nullptr ? a : b)->name,
                           a != nullptr ? lora_b_name(spec) : lora_a_name(spec));
    }
    LoraPair pair;
    pair.linear = spec;
    BN_ASSIGN_OR_RETURN(pair.a, read_values(file, *a, {adapter.rank, spec.shape[1]}));
    BN_ASSIGN_OR_RETURN(pair.b, read_values(file, *b, {spec.shape[0], adapter.rank}));
    adapter.pairs.push_back(std::move(pair));
    known.push_back(a->name);
    known.push_back(b->name);
  }
  for (const StoredTensor& tensor : file.tensors()) {
    if (std::find(known.begin(), known.end(), tensor.name) != known.end()) continue;
    return unsupported("{}: tensor {} belongs to no linear layer of {}, or is no lora_A or lora_B of one", file.name(),
                       tensor.name, base.path());
  }
  if (adapter.pairs.empty()) return invalid_input("{}: holds no adapter of any layer", file.name());
  return ok();
}

Status check_shape(const LoraAdapter& adapter, const Checkpoint& base) {
  const std::string shape = lora_base_shape(base.config());
  if (adapter.base.shape.empty() || adapter.base.shape == shape) return ok();
  return invalid_input("{}: the adapter was made for a base of {}; {} has {}", adapter.path, adapter.base.shape,
                       base.path(), shape);
}

Status check_base(const LoraAdapter& adapter, const Checkpoint& base, ThreadPool& pool) {
  if (adapter.base.checksum.empty()) return ok();
  BN_ASSIGN_OR_RETURN(const LoraBase found, lora_base_of(base, pool));
  if (found.checksum == adapter.base.checksum) return ok();
  Error error = invalid_input("{}: the adapter was made for a base with the checksum {}, {} has {}", adapter.path,
                              adapter.base.checksum, base.path(), found.checksum);
  error.suggestion = "load the base that it was trained on";
  return error;
}

}  // namespace

std::span<const LoraTarget> lora_targets() { return kTargets; }

Result<std::vector<WeightRole>> parse_lora_targets(std::string_view names) {
  std::vector<WeightRole> roles;
  while (true) {
    const std::string_view name = names.substr(0, names.find(','));
    const LoraTarget* const target = find_target(name);
    if (target == nullptr) {
      return invalid_argument("\"{}\" is no linear layer; there are q, k, v, o, gate, up and down", name);
    }
    if (std::find(roles.begin(), roles.end(), target->role) != roles.end()) {
      return invalid_argument("{} is named twice", name);
    }
    roles.push_back(target->role);
    if (name.size() == names.size()) break;
    names.remove_prefix(name.size() + 1);
  }
  return roles;
}

std::string lora_a_name(const WeightSpec& linear) { return module_of(linear) + ".lora_A.weight"; }
std::string lora_b_name(const WeightSpec& linear) { return module_of(linear) + ".lora_B.weight"; }

const LoraPair* LoraAdapter::find(WeightRole role, int64_t layer) const {
  const auto found = std::find_if(pairs.begin(), pairs.end(), [&](const LoraPair& pair) {
    return pair.linear.role == role && pair.linear.layer == layer;
  });
  return found == pairs.end() ? nullptr : &*found;
}

Result<LoraAdapter> read_lora_adapter(const std::string& path, const Checkpoint& base, ThreadPool& pool) {
  std::error_code ignored;
  const fs::path folder = fs::is_directory(path, ignored) ? fs::path(path) : fs::path(path).parent_path();
  if (!fs::exists(path, ignored)) return invalid_input("{}: there is no such adapter, file or folder", path);
  LoraAdapter adapter;
  adapter.path = fs::is_directory(path, ignored) ? (folder / kLoraWeightsName).string() : path;
  if (base.config().input_norms) {
    return unsupported("{}: the base {} has norms in front of single linears, whose inputs adapters do not see",
                       adapter.path, base.path());
  }
  BN_RETURN_IF_ERROR(read_config((folder / kLoraConfigName).string(), adapter, base.config().d_model));
  BN_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::open(adapter.path));
  const auto said = [&](const char* key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  adapter.base = {said(kLoraShapeKey), said(kLoraChecksumKey)};
  BN_RETURN_IF_ERROR(check_shape(adapter, base));
  BN_RETURN_IF_ERROR(read_pairs(file, base, adapter));
  BN_RETURN_IF_ERROR(check_base(adapter, base, pool));
  return adapter;
}

}  // namespace bitnet
