#include "kernels/cuda/cuda_memory.h"

#include "kernels/cuda/cuda_error.h"

#include <cstring>
#include <map>
#include <mutex>

namespace bitnet {
namespace {

Result<std::byte*> take_device(const MemorySource& self, const MemoryRequest& request) {
  BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(self.device), "choosing the device");
  void* data = nullptr;
  if (const cudaError_t error = cudaMalloc(&data, request.size_bytes); error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    (void)cudaMemGetInfo(&free_bytes, &total_bytes);
    return make_error(ErrorCode::kResource, "cuda:{} cannot give {:.3f} GiB: {:.3f} of its {:.3f} GiB are free",
                      self.device, double(request.size_bytes) * 0x1p-30, double(free_bytes) * 0x1p-30,
                      double(total_bytes) * 0x1p-30);
  } else if (error != cudaSuccess) {
    return cuda_error(error, "taking memory");
  }
  // Clearing goes on after cudaMemset() has returned, and streams that do not block never wait for it.
  cudaError_t error = cudaMemset(data, 0, request.size_bytes);
  if (error == cudaSuccess) error = cudaStreamSynchronize(cudaStreamLegacy);
  if (error != cudaSuccess) {
    (void)cudaFree(data);
    return cuda_error(error, "clearing memory");
  }
  return static_cast<std::byte*>(data);
}

Result<std::byte*> take_pinned(const MemorySource& self, const MemoryRequest& request) {
  BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(self.device), "choosing the device");
  void* data = nullptr;
  BN_CUDA_RETURN_IF_ERROR(cudaMallocHost(&data, request.size_bytes), "taking pinned memory");
  std::memset(data, 0, request.size_bytes);
  return static_cast<std::byte*>(data);
}

// One table a device, for ever: buffers point to it.
const MemorySource& table_of(int device, const MemorySource& model) {
  static std::mutex mutex;
  static auto& tables = *new std::map<std::pair<const MemorySource*, int>, MemorySource>;
  const std::lock_guard<std::mutex> lock(mutex);
  MemorySource& table = tables.try_emplace({&model, device}, model).first->second;
  table.device = device;
  return table;
}

}  // namespace

const MemorySource& device_memory(int device) {
  static constexpr MemorySource model{
      "cuda", take_device, [](const MemorySource&, std::byte* data, size_t) { (void)cudaFree(data); }, nullptr};
  return table_of(device, model);
}

const MemorySource& pinned_memory(int device) {
  static constexpr MemorySource model{
      "pinned", take_pinned, [](const MemorySource&, std::byte* data, size_t) { (void)cudaFreeHost(data); }, nullptr};
  return table_of(device, model);
}

}  // namespace bitnet
