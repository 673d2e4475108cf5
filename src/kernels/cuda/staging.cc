#include "kernels/cuda/staging.h"

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_memory.h"

#include <utility>

namespace bitnet {

Result<std::unique_ptr<Staging>> Staging::create(int device) {
  std::unique_ptr<Staging> staging(new Staging);
  BN_ASSIGN_OR_RETURN(staging->host_, Buffer::allocate_from(pinned_memory(device), kSize_bytes));
  BN_ASSIGN_OR_RETURN(staging->device_, Buffer::allocate_from(device_memory(device), kSize_bytes));
  BN_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&staging->stream_, cudaStreamNonBlocking), "making a stream");
  return staging;
}

Staging::~Staging() {
  if (stream_ == nullptr) return;
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
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
  return Staging::create(device_);
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
