#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/staging.h"
#include "memory/arena.h"

#include <cuda_runtime.h>

#include <memory>
#include <string>

namespace bitnet {

// One NVIDIA GPU. The operations run on the stream one after the other and give the bits of docs/numerics.md; they
// return before they have run. fuse() has the steps that are fast.
class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, const cudaDeviceProp& properties);

  std::string_view name() const override { return "cuda"; }
  std::string_view kernels() const override { return kernels_; }
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override;
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override;
  bool host_memory() const override { return false; }
  Status upload(std::span<const std::byte> from, void* to) const override;
  Status fetch(Stream& stream, const void* from, std::span<std::byte> to) const override;
  Status wait(Stream& stream) const override;
  Status check_kv(DType dtype, int64_t head_dim) const override;
  Result<DeviceLimits> measure_limits() const override;
  Result<std::unique_ptr<FusedModel>> fuse(const ModelGraph& graph) const override;

  Status reserve(std::span<const WeightPlan> plan) const override;
  Result<std::unique_ptr<Matrix>> prepare(const TernarySource& source, ThreadPool& pool) const override;
  Result<std::unique_ptr<Matrix>> prepare(const FloatSource& source, ThreadPool& pool) const override;

  Status embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const override;
  void rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps, MatrixView out) const override;
  void quantize(Stream& stream, MatrixView x, QuantizedView out) const override;
  void fake_quantize(Stream& stream, MatrixView x, MatrixView out) const override;
  void linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const override;
  void linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const override;
  Status best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t n_best, MatrixView out) const override;
  void rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
            int64_t first_position) const override;
  void store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv, int64_t first_position) const override;
  void attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                 MatrixView out) const override;
  void gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up, MatrixView out) const override;
  void add(Stream& stream, MatrixView x, MatrixView y) const override;

  // Makes the device this thread's current one; every function here begins so.
  Status enter() const;
  // The host's memory that the device reads and writes by itself.
  Result<Buffer> allocate_pinned(size_t size_bytes) const;
  int n_multiprocessors() const { return n_multiprocessors_; }
  // Of Hopper: bulk copies, dependent launches, wgmma.
  bool hopper() const { return hopper_; }

 private:
  Result<Buffer> allocate_alone(size_t size_bytes) const;

  int device_;
  int n_multiprocessors_;
  bool hopper_;
  std::string kernels_;  // "sm_90"
  mutable std::unique_ptr<Arena> arena_;
  mutable StagingPool staging_;
};

}  // namespace bitnet
