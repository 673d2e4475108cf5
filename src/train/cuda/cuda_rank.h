#pragma once

#include "kernels/cuda/collectives.h"
#include "train/core/shard_layout.h"
#include "train/cuda/cuda_codes.h"
#include "train/cuda/cuda_stages.h"
#include "train/cuda/shard_kernels.h"
#include "train/engine.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// One of several GPUs that train a model: the whole forward and backward pass for its sequences, but the weights,
// moments and updates of its shard alone (core/shard_layout.h). Gradients are reduced to the shards bucket by bucket,
// on a stream of their own, while the backward pass goes on; after an update the others get 2-bit codes of the linears
// and floats of the rest. One thread at a time; all ranks make the same calls.
class CudaRank {
 public:
  // `member`: of the process's ranks. Config, shards and options outlive it.
  static Result<std::unique_ptr<CudaRank>> create(const ModelConfig& config, const ShardLayout& shards,
                                                  const EngineOptions& options, const RopeTable& rope, int member);
  ~CudaRank();
  CudaRank(const CudaRank&) = delete;
  CudaRank& operator=(const CudaRank&) = delete;

  int device() const { return context_->device(); }
  uint64_t activation_bytes() const { return activation_bytes_; }
  void connect(const Collectives& collectives) { collectives_ = &collectives; }
  // Everything that it was told to do is done, or is given up after an abort.
  void drain() const;

  // As the engine's (engine.h), ids and targets of the rank's own sequences; empty where it has none.
  Status prepare(const LayerQuantization& quantization, bool averaged);
  Result<double> evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets);
  Status begin_step(int64_t n_parts);
  Status backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor);
  Result<StepSums> step_sums();
  Status update(const UpdateRates& rates);
  Status move_average(float keep, float take);
  Result<CodeShares> count_codes();
  Result<TernaryLinear> linear(const WeightSpec& spec);

  // What a rank has of something that is laid out as the parameters.
  enum class Values : uint8_t { kParameters, kAverage, kFirstMoment, kSecondMoment, kGradients };
  // To and from the host's image in `layout`, which only one caller has; the others hand in null.
  Status fetch(Values which, const ParameterLayout& layout, float* image);
  Status send(Values which, const ParameterLayout& layout, const float* image);

 private:
  CudaRank(const ModelConfig& config, const ShardLayout& shards, const EngineOptions& options, const RopeTable& rope,
           int member, std::unique_ptr<CudaContext> context);
  Status start(const RopeTable& rope);
  Status send_tables();
  bool adamw() const { return options_.optimizer.kind == OptimizerKind::kAdamW; }
  float* shard_of(Values which) const;
  // Every rank's piece of each bucket, in the layout's order in gradients_.
  Status gather(const float* shard);
  Status reduce(size_t bucket);
  Status reduce_down_to(int64_t layer);
  Status finish_reduction();
  Result<StepSums> all_sums();
  cudaStream_t stream() const { return context_->stream(); }

  const ShardLayout& shards_;
  const EngineOptions& options_;
  int member_, rank_;
  std::unique_ptr<CudaContext> context_;
  Graph<CudaContext> graph_;
  CudaCodes codes_;
  const Collectives* collectives_ = nullptr;
  cudaStream_t reducing_ = nullptr;
  std::vector<cudaEvent_t> complete_;  // of each bucket's gradients
  cudaEvent_t reduced_ = nullptr;
  size_t n_waiting_ = 0;  // buckets that are still to be reduced, the first ones
  int64_t n_parts_ = 0;   // of the step that are still to come
  uint64_t activation_bytes_ = 0;

  float* gradients_ = nullptr;  // of all; between steps whatever is gathered
  float* floats_ = nullptr;     // the first bucket's parameters, of all ranks
  float *parameters_ = nullptr, *average_ = nullptr, *first_ = nullptr, *second_ = nullptr;  // of the shard
  float* shard_gradients_ = nullptr;
  uint8_t* decays_ = nullptr;
  cuda::ShardedLinear* linears_ = nullptr;
  double *sum_parts_ = nullptr, *weight_sums_ = nullptr;  // [n_linears, kShardSumParts], [n_ranks, n_linears]
  double* all_totals_ = nullptr;                          // [n_ranks, 2]
  int n_linears_ = 0;
};

}  // namespace bitnet
