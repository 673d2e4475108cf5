#pragma once

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/group_rank.h"
#include "kernels/cuda/rank_threads.h"

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// Several GPUs that share one model: tensor parallelism. It has whole steps only (fuse()), with the bits of one GPU.
class CudaGroup final : public Backend {
 public:
  // `device` as it was named, for errors. The GPUs differ from one another.
  static Result<std::unique_ptr<Backend>> create(std::string_view device, std::span<const int> devices,
                                                 std::vector<std::unique_ptr<CudaBackend>> ranks);

  std::string_view name() const override { return "cuda"; }
  std::string_view kernels() const override { return kernels_; }
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override;
  // The same on every GPU.
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override;
  Result<Buffer> allocate_cache(const KvLayer& layer, int64_t n_layers, size_t plane_bytes) const override;
  bool host_memory() const override { return false; }
  Status upload(std::span<const std::byte> from, void* to) const override;
  Status fetch(Stream& stream, const void* from, std::span<std::byte> to) const override;
  Status wait(Stream& stream) const override;
  Status check_kv(DType dtype, int64_t head_dim) const override;
  Result<std::unique_ptr<FusedModel>> fuse(const ModelGraph& graph) const override;

  Status reserve(std::span<const WeightPlan> plan) const override;
  Result<std::unique_ptr<Matrix>> prepare(const TernarySource& source, ThreadPool& pool) const override;
  Result<std::unique_ptr<Matrix>> prepare(const FloatSource& source, ThreadPool& pool) const override;

  // Nobody comes here: there is no stream without a fused model.
  Status embed(Stream&, const Matrix&, std::span<const int32_t>, MatrixView) const override { return whole_steps(); }
  void rms_norm(Stream&, MatrixView, std::span<const float>, float, MatrixView) const override {}
  void quantize(Stream&, MatrixView, QuantizedView) const override {}
  void fake_quantize(Stream&, MatrixView, MatrixView) const override {}
  void linear(Stream&, std::span<const LinearCall>, const QuantizedView&) const override {}
  void linear(Stream&, std::span<const LinearCall>, MatrixView) const override {}
  Status best_logits(Stream&, const Matrix&, MatrixView, int64_t, MatrixView) const override { return whole_steps(); }
  void rope(Stream&, MatrixView, int64_t, const RopeTable&, int64_t) const override {}
  void store_kv(Stream&, MatrixView, MatrixView, const KvLayer&, int64_t) const override {}
  void attention(Stream&, MatrixView, const KvLayer&, int64_t, MatrixView) const override {}
  void gate(Stream&, GateActivation, MatrixView, MatrixView, MatrixView) const override {}
  void add(Stream&, MatrixView, MatrixView) const override {}

  int n_ranks() const { return int(ranks_.size()); }
  const CudaBackend& rank(int i) const { return *ranks_[size_t(i)]; }
  // job(rank) on every GPU's thread, one caller after the other. After an error the GPUs no longer work together.
  Status run(const std::function<Status(int)>& job) const;

 private:
  CudaGroup() = default;
  Error whole_steps() const;

  std::string device_, kernels_;  // "cuda:0,1", "2 x sm_90"
  std::vector<std::unique_ptr<CudaBackend>> ranks_;
  std::unique_ptr<Collectives> collectives_;
  std::unique_ptr<RankThreads> threads_;
  mutable std::mutex running_;
};

// A matrix by its rows on several GPUs.
class GroupMatrix final : public Matrix {
 public:
  GroupMatrix(int64_t n_rows, int64_t n_cols, bool ternary, std::vector<RowShare> shares,
              std::vector<std::unique_ptr<Matrix>> parts)
      : Matrix(n_rows, n_cols, ternary), shares_(std::move(shares)), parts_(std::move(parts)) {}
  size_t size_bytes() const override { return sum(&Matrix::size_bytes); }
  size_t bytes_per_product() const override { return sum(&Matrix::bytes_per_product); }
  const Matrix* part(int rank) const { return parts_[size_t(rank)].get(); }
  const std::vector<RowShare>& shares() const { return shares_; }

 private:
  size_t sum(size_t (Matrix::*bytes)() const) const {
    size_t total = 0;
    for (const auto& part : parts_) total += (part.get()->*bytes)();
    return total;
  }
  std::vector<RowShare> shares_;
  std::vector<std::unique_ptr<Matrix>> parts_;
};

}  // namespace bitnet
