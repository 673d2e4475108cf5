#pragma once

#include "train/engine.h"

namespace bitnet {

// Training on one GPU: AdamW and SGD, whole-matrix scales of mean |w|. kUnsupported for anything else, for a GPU that
// is not there and without cuBLASLt; kResource where the device has too little memory, all of which is taken here.
Result<std::unique_ptr<TrainEngine>> make_cuda_engine(const ModelConfig& config, const ParameterLayout& layout,
                                                      const EngineOptions& options);

}  // namespace bitnet
