#pragma once

#include "base/result.h"

#include <cuda_runtime.h>

namespace bitnet {

// What the runtime said while `doing` something ("copying weights to the device").
inline Error cuda_error(cudaError_t error, std::string_view doing) {
  (void)cudaGetLastError();
  return make_error(ErrorCode::kResource, "CUDA, {}: {} ({})", doing, cudaGetErrorString(error),
                    cudaGetErrorName(error));
}

}  // namespace bitnet

#define BN_CUDA_RETURN_IF_ERROR(expr, doing) \
  if (const cudaError_t bn_cuda = (expr); bn_cuda != cudaSuccess) return cuda_error(bn_cuda, doing)
