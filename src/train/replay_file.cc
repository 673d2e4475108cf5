#include "train/replay_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

namespace bitnet {
namespace {

constexpr std::string_view kGroups[] = {"init", "grad0", "final"};

const char* role_name(WeightRole role) {
  switch (role) {
    case WeightRole::kTokenEmbedding: return "embed";
    case WeightRole::kOutputNorm: return "norm";
    case WeightRole::kOutput: return "head";
    case WeightRole::kAttnNorm: return "attn_norm";
    case WeightRole::kQ: return "q";
    case WeightRole::kK: return "k";
    case WeightRole::kV: return "v";
    case WeightRole::kAttnSubNorm: return "attn_sub_norm";
    case WeightRole::kO: return "o";
    case WeightRole::kFfnNorm: return "ffn_norm";
    case WeightRole::kGate: return "gate";
    case WeightRole::kUp: return "up";
    case WeightRole::kFfnSubNorm: return "ffn_sub_norm";
    case WeightRole::kDown: return "down";
    default: return "input_norm";
  }
}

// The number of layers that "init.layers.N." names count up to.
int64_t count_layers(const SafetensorsFile& file) {
  constexpr std::string_view kPrefix = "init.layers.";
  int64_t n = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    const std::string_view name = tensor.name;
    if (name.substr(0, kPrefix.size()) != kPrefix) continue;
    int64_t layer = -1;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
    n = std::max(n, layer + 1);
  }
  return n;
}

}  // namespace

std::string ReplayFile::short_name(const WeightSpec& spec) {
  return spec.layer < 0 ? role_name(spec.role) : fmt::format("layers.{}.{}", spec.layer, role_name(spec.role));
}

Result<ReplayFile> ReplayFile::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(path));
  ReplayFile replay(std::move(file));
  BN_RETURN_IF_ERROR(replay.read_config());
  BN_RETURN_IF_ERROR(replay.check_tensors());
  return replay;
}

Status ReplayFile::read_config() {
  config_.architecture = "bitnet-b1.58";
  config_.n_layers = count_layers(file_);
  BN_ASSIGN_OR_RETURN(config_.n_heads, whole_number("n_heads"));
  BN_ASSIGN_OR_RETURN(config_.n_kv_heads, whole_number("n_kv_heads"));
  BN_ASSIGN_OR_RETURN(config_.head_dim, whole_number("head_dim"));
  config_.rope_dim = config_.head_dim;
  BN_ASSIGN_OR_RETURN(config_.rope_theta, number("rope_theta"));
  BN_ASSIGN_OR_RETURN(const double rms_eps, number("rms_norm_eps"));
  config_.rms_eps = float(rms_eps);
  BN_ASSIGN_OR_RETURN(lr_, number("lr"));
  BN_ASSIGN_OR_RETURN(weight_decay_, number("weight_decay"));
  BN_ASSIGN_OR_RETURN(beta1_, number("beta1"));
  BN_ASSIGN_OR_RETURN(beta2_, number("beta2"));
  BN_ASSIGN_OR_RETURN(eps_, number("eps"));
  optimizer_.beta1 = float(beta1_);
  optimizer_.beta2 = float(beta2_);
  optimizer_.eps = float(eps_);

  BN_ASSIGN_OR_RETURN(const Shape tokens, shape_of("tokens", 3));
  n_steps_ = tokens[0];
  n_sequences_ = tokens[1];
  n_positions_ = tokens[2] - 1;
  if (n_steps_ < 1 || n_sequences_ < 1 || n_positions_ < 1) {
    return invalid_input("{}: tokens has the shape {}, expected [steps, sequences, positions + 1]", file_.name(),
                         shape_string(tokens));
  }
  config_.n_ctx_train = n_positions_;
  BN_ASSIGN_OR_RETURN(const Shape embed, shape_of("init.embed", 2));
  config_.vocab_size = embed[0];
  config_.d_model = embed[1];
  if (config_.n_layers < 1) return invalid_input("{}: there is no tensor init.layers.0.*", file_.name());
  BN_ASSIGN_OR_RETURN(const Shape gate, shape_of("init.layers.0.gate", 2));
  config_.d_ff = gate[0];
  config_.sub_norms = file_.find("init.layers.0.attn_sub_norm") != nullptr;
  config_.tied_head = file_.find("init.head") == nullptr;
  return check_config(config_, file_.name());
}

Status ReplayFile::check_tensors() const {
  std::set<std::string, std::less<>> expected;
  for (const std::string_view group : kGroups) {
    for (const WeightSpec& spec : list_weights(config_)) {
      const std::string name = fmt::format("{}.{}", group, short_name(spec));
      BN_ASSIGN_OR_RETURN(const StoredTensor* const tensor, find(name));
      if (tensor->shape != spec.shape || tensor->dtype != DType::kF32) {
        return invalid_input("{}: {} is {} {}, expected F32 {}", file_.name(), name, dtype_info(tensor->dtype).name,
                             shape_string(tensor->shape), shape_string(spec.shape));
      }
      expected.insert(name);
    }
  }
  for (const StoredTensor& tensor : file_.tensors()) {
    const std::string_view group = std::string_view(tensor.name).substr(0, tensor.name.find('.'));
    const bool is_weight = std::find(std::begin(kGroups), std::end(kGroups), group) != std::end(kGroups);
    if (!is_weight || expected.count(tensor.name) > 0) continue;
    return unsupported("{}: {} is no weight of a BitNet model with {} layers", file_.name(), tensor.name,
                       config_.n_layers);
  }
  BN_ASSIGN_OR_RETURN(const Shape losses, shape_of("losses", 1));
  if (losses[0] == n_steps_) return ok();
  return invalid_input("{}: there are {} losses, expected {}, one a step", file_.name(), losses[0], n_steps_);
}

Result<const StoredTensor*> ReplayFile::find(const std::string& name) const {
  const StoredTensor* const tensor = file_.find(name);
  if (tensor != nullptr) return tensor;
  return invalid_input("{}: there is no tensor {}", file_.name(), name);
}

Result<Shape> ReplayFile::shape_of(const std::string& name, size_t n_dimensions) const {
  BN_ASSIGN_OR_RETURN(const StoredTensor* const tensor, find(name));
  if (tensor->shape.size() == n_dimensions) return tensor->shape;
  return invalid_input("{}: {} has the shape {}, expected {} dimensions", file_.name(), name,
                       shape_string(tensor->shape), n_dimensions);
}

Result<double> ReplayFile::number(const char* key) const {
  const auto found = file_.metadata().find(key);
  if (found == file_.metadata().end()) {
    return invalid_input("{}: the metadata do not have {}", file_.name(), key);
  }
  const std::string& text = found->second;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value)) return value;
  return invalid_input("{}: the metadata's {} is \"{}\", expected a number", file_.name(), key, text);
}

Result<int64_t> ReplayFile::whole_number(const char* key) const {
  BN_ASSIGN_OR_RETURN(const double value, number(key));
  if (value == std::floor(value) && std::fabs(value) < 1e9) return int64_t(value);
  return invalid_input("{}: the metadata's {} is {}, expected a whole number", file_.name(), key, value);
}

Status ReplayFile::read_floats(const std::string& name, float* out) const {
  BN_ASSIGN_OR_RETURN(const StoredTensor* const tensor, find(name));
  if (tensor->dtype != DType::kF32) {
    return invalid_input("{}: {} is {}, expected F32", file_.name(), name, dtype_info(tensor->dtype).name);
  }
  const size_t n = tensor->size_bytes / sizeof(float);
  BN_RETURN_IF_ERROR(file_.read(*tensor, 0, std::as_writable_bytes(std::span(out, n))));
  if (std::all_of(out, out + n, [](float x) { return std::isfinite(x); })) return ok();
  return invalid_input("{}: {} has values that are not finite", file_.name(), name);
}

Result<std::vector<float>> ReplayFile::read(const std::string& group, const ParameterLayout& layout) const {
  std::vector<float> values(size_t(layout.n_values()));
  for (const ParameterSlice& slice : layout.slices()) {
    BN_RETURN_IF_ERROR(read_floats(fmt::format("{}.{}", group, short_name(slice.spec)), values.data() + slice.offset));
  }
  return values;
}

Result<std::vector<float>> ReplayFile::losses() const {
  std::vector<float> losses(static_cast<size_t>(n_steps_));
  BN_RETURN_IF_ERROR(read_floats("losses", losses.data()));
  return losses;
}

Result<std::vector<int32_t>> ReplayFile::tokens() const {
  BN_ASSIGN_OR_RETURN(const StoredTensor* const tensor, find("tokens"));
  std::vector<int32_t> tokens(size_t(n_steps_ * n_sequences_ * (n_positions_ + 1)));
  if (tensor->dtype == DType::kI32) {
    BN_RETURN_IF_ERROR(file_.read(*tensor, 0, std::as_writable_bytes(std::span(tokens))));
  } else if (tensor->dtype == DType::kI64) {
    std::vector<int64_t> wide(tokens.size());
    BN_RETURN_IF_ERROR(file_.read(*tensor, 0, std::as_writable_bytes(std::span(wide))));
    std::transform(wide.begin(), wide.end(), tokens.begin(),
                   [](int64_t id) { return int32_t(std::clamp<int64_t>(id, -1, INT32_MAX)); });
  } else {
    return invalid_input("{}: tokens is {}, expected I32 or I64", file_.name(), dtype_info(tensor->dtype).name);
  }
  for (const int32_t id : tokens) {
    if (id < 0 || id >= config_.vocab_size) {
      return invalid_input("{}: the token {} is not below the vocabulary's {}", file_.name(), id, config_.vocab_size);
    }
  }
  return tokens;
}

}  // namespace bitnet
