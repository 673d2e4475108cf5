#include "train/export_model.h"

#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "kernels/cpu/dispatch.h"
#include "quant/ternary.h"

#include <filesystem>
#include <system_error>
#include <vector>

namespace bitnet {
namespace {

bool is_packed(const TrainedModel& model, const ParameterSlice& slice) {
  return model.config.ternary && slice.spec.kind == WeightKind::kLinear;
}

// float32 tensors first, as their readers want them aligned.
Status write_weights(const TrainedModel& model, const std::string& path) {
  BN_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(path));
  BN_RETURN_IF_ERROR(writer.add_metadata("format", "pt"));
  for (const ParameterSlice& slice : model.layout.slices()) {
    if (slice.is_step) continue;
    if (is_packed(model, slice)) {
      BN_RETURN_IF_ERROR(writer.add_tensor(slice.spec.hf_scale_name, DType::kF32, {1}));
    } else {
      BN_RETURN_IF_ERROR(writer.add_tensor(slice.spec.hf_name, DType::kF32, slice.spec.shape));
    }
  }
  for (const ParameterSlice& slice : model.layout.slices()) {
    if (slice.is_step || !is_packed(model, slice)) continue;
    const Shape& shape = slice.spec.shape;
    BN_RETURN_IF_ERROR(writer.add_tensor(slice.spec.hf_name, DType::kU8, {(shape[0] + 3) / 4, shape[1]}));
  }
  BN_RETURN_IF_ERROR(writer.begin_data());
  for (const ParameterSlice& slice : model.layout.slices()) {
    if (slice.is_step) continue;
    if (is_packed(model, slice)) {
      BN_ASSIGN_OR_RETURN(const TernaryLinear linear, model.linear(slice.spec));
      const float alpha = linear.alpha;
      BN_RETURN_IF_ERROR(writer.write_data(std::as_bytes(std::span(&alpha, 1))));
    } else {
      const std::span<const float> values(model.parameters + slice.offset, size_t(slice.n_values));
      BN_RETURN_IF_ERROR(writer.write_data(std::as_bytes(values)));
    }
  }
  for (const ParameterSlice& slice : model.layout.slices()) {
    if (slice.is_step || !is_packed(model, slice)) continue;
    BN_ASSIGN_OR_RETURN(const TernaryLinear linear, model.linear(slice.spec));
    BN_ASSIGN_OR_RETURN(const std::vector<std::byte> packed,
                        encode_ternary(TernaryLayout::kHfPacked, slice.spec.shape[0], slice.spec.shape[1], linear.codes,
                                       {}, {}, cpu_ternary_codecs()));
    BN_RETURN_IF_ERROR(writer.write_data(packed));
  }
  return writer.finish();
}

}  // namespace

Status export_trained_folder(const TrainedModel& model, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return make_error(ErrorCode::kResource, "cannot make the folder {}: {}", folder, error.message());
  BN_RETURN_IF_ERROR(write_weights(model, folder + "/model.safetensors"));
  Json json = config_to_hf(model.config);
  json["torch_dtype"] = "float32";
  if (model.vocabulary) {
    const Vocabulary& vocabulary = *model.vocabulary;
    if (vocabulary.bos_id) json["bos_token_id"] = *vocabulary.bos_id;
    if (vocabulary.eos_id) json["eos_token_id"] = *vocabulary.eos_id;
    if (vocabulary.pad_id) json["pad_token_id"] = *vocabulary.pad_id;
    BN_RETURN_IF_ERROR(vocabulary_to_folder(vocabulary, folder));
  }
  return write_file_atomically(folder + "/config.json", json.dump(2) + "\n");
}

}  // namespace bitnet
