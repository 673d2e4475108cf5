#pragma once

#include "model/config.h"

#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// The shape of a published model under a short name ("2b4t"); an unknown name is refused with those there are.
Result<ModelConfig> preset_config(std::string_view name);
std::vector<std::string> preset_names();

}  // namespace bitnet
