#pragma once

#include "base/result.h"

#include <string>

namespace bitnet {

// A path as it is, or the file or folder of a model's name (with or without .gguf) in the folder that BITNET_MODELS
// names, "models" unless set.
Result<std::string> find_model(const std::string& path_or_name);

}  // namespace bitnet
