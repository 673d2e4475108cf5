#pragma once

#include "kernels/backend.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

namespace bitnet {

class CudaBackend;

// What a fused model keeps for one stream.
class FusedState {
 public:
  virtual ~FusedState() = default;
};

// A CUDA stream, and device memory for ids and attention scores.
class CudaStream final : public Stream {
 public:
  static Result<std::unique_ptr<CudaStream>> create(const CudaBackend& backend, const StreamOptions& options);
  ~CudaStream() override;
  ThreadPool& pool() override { return pool_; }

  cudaStream_t get() const { return stream_; }
  // The ids on the device, at most max_tokens. Waits until the ones before are there.
  Result<const int32_t*> send_ids(std::span<const int32_t> ids);
  float* scores() const { return scores_.as<float>(); }
  int64_t max_tokens() const { return max_tokens_; }

  std::unique_ptr<FusedState> fused;

 private:
  CudaStream() = default;
  ThreadPool pool_{1};
  cudaStream_t stream_ = nullptr;
  int64_t max_tokens_ = 0;
  Buffer ids_, scores_;
  Buffer pinned_ids_;
  cudaEvent_t ids_sent_ = nullptr;
};

}  // namespace bitnet
