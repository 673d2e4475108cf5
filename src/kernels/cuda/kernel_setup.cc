#include "kernels/cuda/kernel_setup.h"

#include <map>
#include <mutex>
#include <utility>

namespace bitnet::cuda {

cudaError_t prepare_kernel(const void* function, size_t shared_bytes) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  static std::mutex mutex;
  static auto& granted_bytes = *new std::map<std::pair<const void*, int>, size_t>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, is_new] = granted_bytes.try_emplace({function, device}, 0);
  cudaError_t error = cudaSuccess;
  if (is_new) {
    error =
        cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  if (error == cudaSuccess && shared_bytes > place->second) {
    error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error == cudaSuccess) place->second = shared_bytes;
  }
  if (error != cudaSuccess) granted_bytes.erase(place);
  return error;
}

}  // namespace bitnet::cuda
