#include "base/file.h"
#include "format/json.h"
#include "format/text.h"
#include "model/config_hf_keys.h"
#include "model/microsoft_gpu.h"
#include "model/unknown_names.h"

#include <algorithm>
#include <array>
#include <filesystem>

namespace bitnet {
namespace {

constexpr uint64_t kMaxConfig_bytes = uint64_t{16} << 20;

// What no tensor tells, as config.json of microsoft/bitnet-b1.58-2B-4T has it.
constexpr int64_t kHeadDim = 128, kContext = 4096;
constexpr double kRopeTheta = 500000.0;
constexpr float kRmsEps = 1e-5f;

ModelConfig published_config(const MicrosoftGpuSizes& sizes) {
  ModelConfig c;
  c.architecture = "bitnet-b1.58";
  c.n_layers = sizes.n_layers;
  c.d_model = sizes.d_model;
  c.d_ff = sizes.d_ff;
  c.vocab_size = sizes.vocab_size;
  c.head_dim = kHeadDim;
  c.n_ctx_train = kContext;
  c.rope_theta = kRopeTheta;
  c.rms_eps = kRmsEps;
  c.gate_activation = GateActivation::kRelu2;
  c.sub_norms = true;
  c.ternary = true;
  return c;
}

// Heads of the dimension that is known.
Status divide_heads(const MicrosoftGpuSizes& sizes, const std::string& file, ModelConfig& c) {
  if (c.head_dim > 0 && sizes.d_q % c.head_dim == 0 && sizes.d_kv % c.head_dim == 0) {
    c.n_heads = sizes.d_q / c.head_dim;
    c.n_kv_heads = sizes.d_kv / c.head_dim;
    c.rope_dim = c.head_dim;
    return ok();
  }
  Error error = unsupported("{}: queries of {} and keys of {} values cannot be divided into heads of {}", file,
                            sizes.d_q, sizes.d_kv, c.head_dim);
  error.suggestion = "put a config.json or params.json that states the number of heads beside it";
  return error;
}

// The fields of the scripts' own ModelArgs.
Status apply_params(const Json& json, const std::string& path, const MicrosoftGpuSizes& sizes,
                    MicrosoftGpuConfig& out) {
  if (!json.is_object()) return invalid_input("{}: holds {}, expected an object", path, hf::short_dump(json));
  ModelConfig& c = out.config;
  int64_t n_heads = 0, n_kv_heads = 0;
  const auto fields = std::to_array<std::pair<const char*, int64_t*>>({{"dim", &c.d_model},
                                                                       {"n_layers", &c.n_layers},
                                                                       {"n_heads", &n_heads},
                                                                       {"n_kv_heads", &n_kv_heads},
                                                                       {"vocab_size", &c.vocab_size},
                                                                       {"ffn_dim", &c.d_ff},
                                                                       {"head_dim", &c.head_dim},
                                                                       {"max_seq_len", &c.n_ctx_train}});
  std::vector<std::string> unknown;
  for (const auto& [key, value] : json.items()) {
    const auto field =
        std::find_if(fields.begin(), fields.end(), [name = key](const auto& known) { return name == known.first; });
    if (value.is_null() || key == "use_kernel") continue;
    if (field != fields.end()) {
      BN_ASSIGN_OR_RETURN(*field->second, json_int(json, field->first, path, 1, INT64_MAX));
    } else if (key == "rope_theta") {
      BN_ASSIGN_OR_RETURN(c.rope_theta, json_number(json, "rope_theta", path));
    } else if (key == "norm_eps") {
      BN_ASSIGN_OR_RETURN(const double eps, json_number(json, "norm_eps", path));
      c.rms_eps = float(eps);
    } else if (key == "use_scaled_rope") {
      if (!hf::is_neutral(value, 0)) return hf::changes_mathematics(path, key, value);
    } else {
      unknown.push_back(key);
    }
  }
  note_unknown("params.json key", unknown, out.notices);
  if (hf::find(json, "head_dim") == nullptr && n_heads > 0) c.head_dim = sizes.d_q / n_heads;
  BN_RETURN_IF_ERROR(divide_heads(sizes, path, c));
  const bool agrees = (n_heads == 0 || n_heads == c.n_heads) && (n_kv_heads == 0 || n_kv_heads == c.n_kv_heads);
  if (agrees) return ok();
  return invalid_input("{}: states {} heads and {} for keys and values, but the tensors are of {} and {} heads of {}",
                       path, n_heads, n_kv_heads, c.n_heads, c.n_kv_heads, c.head_dim);
}

// A Hugging Face config.json: only what it says about sizes and constants; the tensors tell how they are stored.
Status apply_config(const Json& json, const std::string& path, MicrosoftGpuConfig& out) {
  BN_ASSIGN_OR_RETURN(HfConfig hf, config_from_hf(json, path));
  if (!hf.config.sub_norms || hf.config.input_norms) {
    return unsupported("{}: describes another graph than that of Microsoft's GPU scripts, BitNet b1.58 2B4T's", path);
  }
  out.config = std::move(hf.config);
  out.config.ternary = true;
  out.notices = std::move(hf.notices);
  return ok();
}

}  // namespace

Result<MicrosoftGpuConfig> config_of_microsoft_gpu(const MicrosoftGpuSizes& sizes, const std::string& folder,
                                                   const std::string& file) {
  MicrosoftGpuConfig out;
  out.config = published_config(sizes);
  std::error_code ignored;
  for (const char* name : {"config.json", "params.json"}) {
    const std::string path = folder + "/" + name;
    if (!std::filesystem::exists(path, ignored)) continue;
    BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxConfig_bytes));
    BN_ASSIGN_OR_RETURN(const Json json, parse_json(text, path));
    out.path = path;
    BN_RETURN_IF_ERROR(name[0] == 'c' ? apply_config(json, path, out) : apply_params(json, path, sizes, out));
    break;
  }
  if (out.path.empty()) {
    BN_RETURN_IF_ERROR(divide_heads(sizes, file, out.config));
    out.notices.push_back(fmt::format(
        "no config.json or params.json lies beside it: heads of {}, rotary base {} and a context of {} are assumed",
        kHeadDim, kRopeTheta, kContext));
  }
  BN_RETURN_IF_ERROR(check_config(out.config, out.path.empty() ? file : out.path));
  return out;
}

}  // namespace bitnet
