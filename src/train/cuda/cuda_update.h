#pragma once

#include "train/core/optimizer.h"
#include "train/engine.h"

#include <cuda_runtime.h>

#include <cstdint>

namespace bitnet {

// What a GPU trains with: kUnsupported for other optimisers and for learned steps.
Status check_cuda_options(const ParameterLayout& layout, const EngineOptions& options);
// The same for groups of columns and for widths between float and ternary.
Status check_cuda_quantization(const LayerQuantization& quantization);

// n values that an optimiser updates, on the device.
struct UpdatedValues {
  int64_t n = 0;
  const uint8_t* decays = nullptr;  // a byte for each cuda::kDecayGroup
  const float* gradients = nullptr;
  float *first = nullptr, *second = nullptr;  // moments; second of AdamW only
  float* parameters = nullptr;
};
void update_values(cudaStream_t stream, const OptimizerOptions& options, const UpdateRates& rates,
                   const UpdatedValues& values);

}  // namespace bitnet
