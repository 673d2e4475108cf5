#pragma once

#include "kernels/backend.h"

#include <memory>
#include <string_view>
#include <vector>

namespace bitnet {

// "cuda" (the first GPU), "cuda:N", or several GPUs that share a model as "cuda:0,1". kUnsupported without a driver or
// a GPU of compute capability 8.0 or more, kInvalidArgument where there are fewer GPUs; each says what was found.
Result<std::unique_ptr<Backend>> make_cuda_backend(std::string_view device);

// The GPUs that make_cuda_backend() takes.
std::vector<DeviceInfo> list_cuda_devices();

}  // namespace bitnet
