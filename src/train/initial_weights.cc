#include "train/initial_weights.h"

#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "quant/blocks.h"
#include "train/checkpoint_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <variant>
#include <vector>

namespace bitnet {
namespace {

Status read_floats(const FloatSource& source, float* out) {
  const int64_t n = source.n_rows * source.n_cols;
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, tensor_bytes(source.dtype, {source.n_rows, source.n_cols}));
  std::vector<std::byte> bytes(size_bytes);
  BN_RETURN_IF_ERROR(source.read_rows(0, source.n_rows, bytes.data()));
  return dequantize(source.dtype, bytes, n, out);
}

Status read_codes(const TernarySource& source, const std::string& name, float* out) {
  if (!source.scales.groups.empty()) {
    return unsupported("{} has a scale for every {} columns; training continues from one scale a matrix", name,
                       source.scales.group_cols);
  }
  const int64_t n = source.n_rows * source.n_cols;
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  BN_RETURN_IF_ERROR(source.read_codes(0, source.n_rows, codes.data()));
  const int64_t n_set = n - std::count(codes.begin(), codes.end(), uint8_t{1});
  const float value = n_set > 0 ? float(double(source.scales.tensor) * double(n) / double(n_set)) : 0.0f;
  for (int64_t i = 0; i < n; ++i) out[i] = float(int(codes[size_t(i)]) - 1) * value;
  return ok();
}

// Latent floats of a folder whose linears are ternarised when they are loaded; false: the file holds none.
Result<bool> read_latent(const std::string& folder, const WeightSpec& spec, float* out) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) return false;
  BN_ASSIGN_OR_RETURN(const SafetensorsFolder files, SafetensorsFolder::open(folder));
  const SafetensorsFolder::Entry* const entry = files.find(spec.hf_name);
  if (entry == nullptr || entry->tensor->shape != spec.shape) return false;
  const DType dtype = entry->tensor->dtype;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) return false;
  BN_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, entry->file->read(*entry->tensor));
  BN_RETURN_IF_ERROR(dequantize(dtype, bytes, spec.n_values(), out));
  return true;
}

Status read_weight(const Checkpoint& checkpoint, const WeightSpec& spec, float* out) {
  switch (spec.kind) {
    case WeightKind::kVector: {
      BN_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint.read_vector(spec));
      std::copy(values.begin(), values.end(), out);
      return ok();
    }
    case WeightKind::kTable: {
      BN_ASSIGN_OR_RETURN(const FloatSource source, checkpoint.table(spec));
      return read_floats(source, out);
    }
    case WeightKind::kLinear: {
      if (checkpoint.torch_archive() == nullptr) {
        BN_ASSIGN_OR_RETURN(const bool latent, read_latent(checkpoint.path(), spec, out));
        if (latent) return ok();
      }
      BN_ASSIGN_OR_RETURN(const LinearSource source, checkpoint.linear(spec));
      if (source.ternary()) return read_codes(std::get<TernarySource>(source.weight), spec.hf_name, out);
      return read_floats(std::get<FloatSource>(source.weight), out);
    }
  }
  return ok();
}

bool is_run(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path + "/checkpoints", ignored);
}

Result<CheckpointFile> last_checkpoint(const std::string& run) {
  BN_ASSIGN_OR_RETURN(NewestCheckpoint newest, newest_checkpoint(run + "/checkpoints"));
  if (!newest.file) return invalid_input("{}: holds no checkpoint yet", run);
  return *std::move(newest.file);
}

bool is_sub_norm(const WeightSpec& spec) {
  return spec.role == WeightRole::kAttnSubNorm || spec.role == WeightRole::kFfnSubNorm;
}

// read(slice, values) of all but learned steps, which follow from their matrix, and norms that the model does not have.
template <class Read>
Status read_slices(const ParameterLayout& layout, bool sub_norms, float* parameters, const Read& read) {
  const float* matrix = nullptr;
  int64_t n_matrix = 0;
  for (const ParameterSlice& slice : layout.slices()) {
    float* const values = parameters + slice.offset;
    if (slice.is_step) {  // its matrix stands in front of it
      double sum = 0;
      for (int64_t i = 0; i < n_matrix; ++i) sum += std::fabs(double(matrix[i]));
      values[0] = float(sum / double(n_matrix));
      continue;
    }
    if (is_sub_norm(slice.spec) && !sub_norms) {
      std::fill_n(values, slice.n_values, 1.0f);
      continue;
    }
    BN_RETURN_IF_ERROR(read(slice, values));
    matrix = values;
    n_matrix = slice.n_values;
  }
  return ok();
}

// Whether the linears are ternary; those of one model are all alike.
Result<bool> has_ternary_linears(const Checkpoint& checkpoint) {
  std::optional<bool> all;
  for (const WeightSpec& spec : checkpoint.weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    BN_ASSIGN_OR_RETURN(const LinearSource source, checkpoint.linear(spec));
    const bool ternary = source.ternary() || source.latent;
    if (ternary != source.quantize_input || (all && *all != ternary)) {
      return unsupported("{}: {} has {} weights and {} inputs; a teacher's linears are all float or all ternary",
                         checkpoint.path(), spec.hf_name, ternary ? "ternary" : "float",
                         source.quantize_input ? "quantised" : "float");
    }
    all = ternary;
  }
  return all.value_or(false);
}

}  // namespace

std::string model_of(const std::string& path) { return is_run(path) ? path + "/model" : path; }

Result<ModelConfig> initial_config(const std::string& path) {
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(model_of(path)));
  if (!checkpoint.config().input_norms) return checkpoint.config();
  return unsupported("{}: norms in front of single linears cannot be trained", path);
}

Status read_initial_weights(const std::string& path, const ParameterLayout& layout, float* parameters) {
  CheckpointOptions options;
  options.keep_latent = true;
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(model_of(path), options));
  const bool sub_norms = checkpoint.config().sub_norms;
  if (!is_run(path)) {
    return read_slices(layout, sub_norms, parameters, [&](const ParameterSlice& slice, float* values) {
      return read_weight(checkpoint, slice.spec, values);
    });
  }
  BN_ASSIGN_OR_RETURN(const CheckpointFile file, last_checkpoint(path));
  return read_slices(layout, sub_norms, parameters, [&](const ParameterSlice& slice, float* values) {
    return file.read(slice.name, DType::kF32, slice.spec.shape,
                     std::as_writable_bytes(std::span(values, size_t(slice.n_values))));
  });
}

Result<std::unique_ptr<Teacher>> read_teacher(const std::string& path) {
  auto teacher = std::make_unique<Teacher>();
  BN_ASSIGN_OR_RETURN(teacher->config, initial_config(path));
  if (is_run(path)) {
    BN_ASSIGN_OR_RETURN(const CheckpointFile file, last_checkpoint(path));
    const Json options = file.state().value("options", Json::object());
    teacher->quantization.enabled = options.value("quantize", true);
    if (options.value("ema", 0.0) > 0 || options.value("weight_scale", "absmean") != "absmean") {
      return unsupported("{}: was trained with ema or learned steps; give its model, {}", path, model_of(path));
    }
  } else {
    CheckpointOptions keep;
    keep.keep_latent = true;
    BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(path, keep));
    BN_ASSIGN_OR_RETURN(teacher->quantization.enabled, has_ternary_linears(checkpoint));
  }
  teacher->config.ternary = teacher->quantization.enabled;
  teacher->layout = ParameterLayout::make(teacher->config);
  teacher->parameters.resize(size_t(teacher->layout.n_values()));
  BN_RETURN_IF_ERROR(read_initial_weights(path, teacher->layout, teacher->parameters.data()));
  return teacher;
}

}  // namespace bitnet
