#include "kernels/cuda/staging.h"

#include "kernels/cuda/cuda_error.h"

#include <utility>

namespace bitnet {

Result<std::unique_ptr<Staging>> Staging::create() {
  std::unique_ptr<Staging> staging(new Staging);
  void* data = nullptr;
  BN_CUDA_RETURN_IF_ERROR(cudaMallocHost(&data, kSize_bytes), "taking pinned memory");
  staging->host_ = static_cast<std::byte*>(data);
  BN_CUDA_RETURN_IF_ERROR(cudaMalloc(&data, kSize_bytes), "taking memory to load weights with");
  staging->device_ = static_cast<std::byte*>(data);
  BN_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&staging->stream_, cudaStreamNonBlocking), "making a stream");
  return staging;
}

Staging::~Staging() {
  if (stream_ != nullptr) {
    (void)cudaStreamSynchronize(stream_);
    (void)cudaStreamDestroy(stream_);
  }
  if (host_ != nullptr) (void)cudaFreeHost(host_);
  if (device_ != nullptr) (void)cudaFree(device_);
}

Result<std::unique_ptr<Staging>> StagingPool::take() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<Staging> staging = std::move(free_.back());
      free_.pop_back();
      return staging;
    }
  }
  return Staging::create();
}

void StagingPool::give_back(std::unique_ptr<Staging> staging) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(std::move(staging));
}

void StagingPool::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.clear();
}

}  // namespace bitnet
