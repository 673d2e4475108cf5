#pragma once

#include "model/forward.h"
#include "train/cpu/cpu_ops.h"
#include "train/engine.h"

namespace bitnet {

// Training on the processor's kernels.
class CpuEngine final : public TrainEngine {
 public:
  static Result<std::unique_ptr<TrainEngine>> create(const ModelConfig& config, const ParameterLayout& layout,
                                                     const EngineOptions& options);

  std::vector<Optimizer::State> optimizer_states() override { return optimizer_.states(); }
  Status prepare(const LayerQuantization& quantization, bool averaged) override;
  Result<double> evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) override;
  Status begin_step(int64_t n_parts) override;
  Status backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) override;
  Result<StepSums> step_sums() override;
  Status update(const UpdateRates& rates) override;
  Status move_average(float keep, float take) override;
  Result<std::span<const float>> gradients() override { return std::span<const float>(gradients_); }
  Result<CodeShares> count_codes() override;
  Result<TernaryLinear> linear(const WeightSpec& spec) override;
  uint64_t frozen_bytes() const override;
  uint64_t activation_bytes() const override;

 private:
  CpuEngine(const ModelConfig& config, const ParameterLayout& layout, const EngineOptions& options,
            std::unique_ptr<CpuOps> ops, RopeTables rope);
  Status learn_from(const Teacher& teacher, GraphOptions options);

  const ModelConfig& config_;
  const ParameterLayout& layout_;
  bool recompute_;
  std::unique_ptr<CpuOps> ops_;
  RopeTables rope_;
  Graph<CpuOps> graph_;
  struct TeacherPass {
    const ModelConfig* config;
    RopeTables rope;
    Graph<CpuOps> graph;
  };
  std::unique_ptr<TeacherPass> teacher_;
  DistillationOptions distillation_;
  const FrozenBase* base_;
  Optimizer optimizer_;
  PoolVector<float> gradients_;
  StepSums sums_;
  std::vector<uint8_t> last_codes_;
};

}  // namespace bitnet
