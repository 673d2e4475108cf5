#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/lora_adapter.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <system_error>
#include <utility>

namespace bitnet {

Status write_lora_adapter(const LoraFile& file, std::span<const LoraValues> values, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return make_error(ErrorCode::kResource, "cannot make the folder {}: {}", folder, error.message());
  BN_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(folder + "/" + kLoraWeightsName));
  BN_RETURN_IF_ERROR(writer.add_metadata("format", "pt"));
  BN_RETURN_IF_ERROR(writer.add_metadata(kLoraShapeKey, file.base.shape));
  BN_RETURN_IF_ERROR(writer.add_metadata(kLoraChecksumKey, file.base.checksum));
  for (const LoraValues& v : values) {
    BN_RETURN_IF_ERROR(writer.add_tensor(lora_a_name(*v.linear), DType::kF32, {file.rank, v.linear->shape[1]}));
    BN_RETURN_IF_ERROR(writer.add_tensor(lora_b_name(*v.linear), DType::kF32, {v.linear->shape[0], file.rank}));
  }
  BN_RETURN_IF_ERROR(writer.begin_data());
  for (const LoraValues& v : values) {
    const auto n_a = size_t(file.rank * v.linear->shape[1]), n_b = size_t(v.linear->shape[0] * file.rank);
    BN_RETURN_IF_ERROR(writer.write_data(std::as_bytes(std::span(v.a, n_a))));
    BN_RETURN_IF_ERROR(writer.write_data(std::as_bytes(std::span(v.b, n_b))));
  }
  BN_RETURN_IF_ERROR(writer.finish());
  Json modules = Json::array();
  for (const LoraTarget& target : lora_targets()) {
    const bool chosen = std::find(file.targets.begin(), file.targets.end(), target.role) != file.targets.end();
    if (chosen) modules.push_back(target.module);
  }
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", file.base_path},
                       {"r", file.rank},
                       {"lora_alpha", file.alpha},
                       {"lora_dropout", 0.0},
                       {"target_modules", std::move(modules)},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"use_rslora", false},
                       {"inference_mode", true}};
  return write_file_atomically(folder + "/" + kLoraConfigName, config.dump(2) + "\n");
}

}  // namespace bitnet
