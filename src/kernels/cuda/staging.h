#pragma once

#include "memory/buffer.h"

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace bitnet {

// Weights on their way to the device: as much pinned memory of the host's as of the device's, and a stream.
class Staging {
 public:
  static constexpr size_t kSize_bytes = size_t{8} << 20;
  static Result<std::unique_ptr<Staging>> create(int device);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  std::byte* host() const { return host_.data(); }
  std::byte* device() const { return device_.data(); }
  cudaStream_t stream() const { return stream_; }

 private:
  Staging() = default;
  Buffer host_, device_;
  cudaStream_t stream_ = nullptr;
};

// Those that no thread uses now: making one takes longer than loading a matrix with it. Thread-safe.
class StagingPool {
 public:
  explicit StagingPool(int device) : device_(device) {}
  Result<std::unique_ptr<Staging>> take();
  void give_back(std::unique_ptr<Staging> staging);
  void clear();

 private:
  const int device_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Staging>> free_;
};

}  // namespace bitnet
