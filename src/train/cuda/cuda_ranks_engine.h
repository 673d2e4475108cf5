#pragma once

#include "train/engine.h"

namespace bitnet {

// Training on several GPUs, those of this process and of others (EngineOptions::ranks), as make_cuda_engine() does on
// one. kUnsupported without NCCL. Returns when all ranks are there and connected; an error of one is one of all.
Result<std::unique_ptr<TrainEngine>> make_cuda_ranks_engine(const ModelConfig& config, const ParameterLayout& layout,
                                                            const EngineOptions& options);

}  // namespace bitnet
