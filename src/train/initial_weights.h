#pragma once

#include "base/result.h"
#include "model/config.h"
#include "train/core/parameters.h"

#include <string>

namespace bitnet {

// The shape of a model that training is to continue from.
Result<ModelConfig> initial_config(const std::string& path);

// The weights of a model (whatever Model::load takes: a folder or a GGUF file, 16-bit or ternary) as the first weights
// of a run. Float weights, latent ones of an online-quantised folder among them, are taken as they are. Ternary ones
// become 0 and +-alpha / share of what is not 0: their absmean scale is alpha again and their codes are the same, so
// that the run begins with the function of the model. Learned steps begin at the mean of |w|.
Status read_initial_weights(const std::string& path, const ParameterLayout& layout, float* parameters);

}  // namespace bitnet
