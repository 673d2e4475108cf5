#include "format/safetensors.h"
#include "model/export.h"

#include <filesystem>
#include <system_error>
#include <utility>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// A folder that is empty or does not exist yet; unless kept, whatever was put into it goes again.
class NewFolder {
 public:
  static Result<NewFolder> create(const std::string& path) {
    std::error_code error;
    const bool existed = fs::exists(path, error);
    if (existed && !fs::is_directory(path, error)) return invalid_argument("{} is a file, expected a folder", path);
    if (existed && !fs::is_empty(path, error)) {
      return invalid_argument("the folder {} is not empty: name a new one", path);
    }
    if (!existed && !fs::create_directory(path, error)) {
      return make_error(ErrorCode::kResource, "cannot make the folder {}: {}", path, error.message());
    }
    return NewFolder(path, existed);
  }
  ~NewFolder() {
    if (path_.empty()) return;
    std::error_code error;
    if (!existed_) {
      fs::remove_all(path_, error);
      return;
    }
    for (const auto& entry : fs::directory_iterator(path_, error)) fs::remove_all(entry.path(), error);
  }
  NewFolder(NewFolder&& other) noexcept : path_(std::exchange(other.path_, {})), existed_(other.existed_) {}
  NewFolder& operator=(NewFolder&&) = delete;

  void keep() { path_.clear(); }

 private:
  NewFolder(std::string path, bool existed) : path_(std::move(path)), existed_(existed) {}
  std::string path_;
  bool existed_;
};

Status write_weights(const Checkpoint& checkpoint, const ExportPlan& plan, const std::string& path,
                     Progress& progress) {
  BN_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(path));
  BN_RETURN_IF_ERROR(writer.add_metadata("format", "pt"));
  for (const ExportWeight& weight : plan.weights) {
    const WeightSpec& spec = *weight.spec;
    const bool packed = weight.dtype == DType::kU8;
    const Shape shape = packed ? Shape{(spec.shape[0] + 3) / 4, spec.shape[1]} : spec.shape;
    BN_RETURN_IF_ERROR(writer.add_tensor(spec.hf_name, weight.dtype, shape));
    if (packed) BN_RETURN_IF_ERROR(writer.add_tensor(spec.hf_scale_name, DType::kF32, {1}));
  }
  BN_RETURN_IF_ERROR(writer.begin_data());
  ThreadPool pool(available_cpus());
  for (const ExportWeight& weight : plan.weights) {
    BN_RETURN_IF_ERROR(export_weight(checkpoint, plan, weight, pool, progress,
                                     [&writer](std::span<const std::byte> bytes) { return writer.write_data(bytes); }));
    if (weight.dtype != DType::kU8) continue;
    BN_RETURN_IF_ERROR(writer.write_data(std::as_bytes(std::span(&weight.scales.tensor, 1))));
  }
  return writer.finish();
}

const char* torch_name(DType type) {
  return type == DType::kF16 ? "float16" : type == DType::kBF16 ? "bfloat16" : "float32";
}

Json config_json(const Checkpoint& checkpoint, const ExportPlan& plan) {
  Json json = config_to_hf(plan.config);
  json["torch_dtype"] = torch_name(plan.weights.front().dtype);
  if (checkpoint.vocabulary()) {
    const Vocabulary& vocabulary = *checkpoint.vocabulary();
    if (vocabulary.bos_id) json["bos_token_id"] = *vocabulary.bos_id;
    if (vocabulary.eos_id) json["eos_token_id"] = *vocabulary.eos_id;
    if (vocabulary.pad_id) json["pad_token_id"] = *vocabulary.pad_id;
  }
  if (!plan.config.ternary) return json;
  for (const ExportWeight& weight : plan.weights) {
    if (weight.spec->kind != WeightKind::kLinear || weight.dtype == DType::kU8) continue;
    const std::string& name = weight.spec->hf_name;
    json["quantization_config"]["modules_to_not_convert"].push_back(name.substr(0, name.rfind('.')));
  }
  return json;
}

}  // namespace

Status export_folder(const Checkpoint& checkpoint, const ExportPlan& plan, const std::string& folder,
                     Progress& progress) {
  BN_ASSIGN_OR_RETURN(NewFolder created, NewFolder::create(folder));
  BN_RETURN_IF_ERROR(write_weights(checkpoint, plan, folder + "/model.safetensors", progress));
  BN_RETURN_IF_ERROR(write_file_atomically(folder + "/config.json", config_json(checkpoint, plan).dump(2) + "\n"));
  if (checkpoint.vocabulary()) BN_RETURN_IF_ERROR(vocabulary_to_folder(*checkpoint.vocabulary(), folder));
  created.keep();
  return ok();
}

}  // namespace bitnet
