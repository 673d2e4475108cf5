#pragma once

#include "base/result.h"
#include "model/config.h"
#include "train/core/parameters.h"
#include "train/engine.h"

#include <memory>
#include <string>

namespace bitnet {

// What training continues from or learns from: whatever Model::load takes (a folder or a GGUF file, 16-bit or ternary),
// or the folder of a finished run, which stands for its model with the float weights of its last checkpoint.

// Where the model itself lies, with its vocabulary: `path`, or the model in a run's folder.
std::string model_of(const std::string& path);

// The shape of a model that training is to continue from.
Result<ModelConfig> initial_config(const std::string& path);

// The weights of a model as the first weights of a run. Float weights, latent ones of an online-quantised folder among
// them, are taken as they are. Ternary ones become 0 and +-alpha / share of what is not 0: their absmean scale is alpha
// again and their codes are the same, so that the run begins with the function of the model. Learned steps begin at the
// mean of |w|, sub-norms that the model does not have at 1.
Status read_initial_weights(const std::string& path, const ParameterLayout& layout, float* parameters);

// A model to learn from, all of whose linears are float, or all ternary with quantised inputs.
Result<std::unique_ptr<Teacher>> read_teacher(const std::string& path);

}  // namespace bitnet
