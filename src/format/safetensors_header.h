#pragma once

#include "base/result.h"
#include "format/stored_tensor.h"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// Limits of ours; the first is the specification's.
inline constexpr uint64_t kMaxSafetensorsHeader_bytes = 100'000'000;
inline constexpr size_t kMaxSafetensorsName_bytes = 4096;
inline constexpr size_t kMaxSafetensorsMetadata_bytes = size_t{8} << 20;  // a value of __metadata__
inline constexpr size_t kMaxSafetensorsDims = 16;
inline constexpr const char* kMetadataKey = "__metadata__";

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in the order of the text, offsets from the start of the data
  std::map<std::string, std::string> metadata;
};
// Reads the JSON text of a header. Sizes agree with shapes and types; where the data lie is not looked at.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, const std::string& file);

// "BF16" for a type that safetensors knows, empty for the others.
std::string_view safetensors_dtype_name(DType type);

}  // namespace bitnet
