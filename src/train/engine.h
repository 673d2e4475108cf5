#pragma once

#include "base/result.h"
#include "memory/pool_vector.h"
#include "model/config.h"
#include "train/core/distillation.h"
#include "train/core/graph.h"
#include "train/core/optimizer.h"
#include "train/core/quantization.h"
#include "train/export_model.h"
#include "train/frozen_base.h"
#include "train/ranks/train_ranks.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// In what a device keeps activations and multiplies matrices. The processor's are its own kernels' (docs/training.md),
// whatever is asked for here.
enum class TrainPrecision : uint8_t { kBf16, kFloat32 };
Result<TrainPrecision> parse_precision(std::string_view name);  // "bf16" or "float32"

// A model that a student learns from: it runs forwards only.
struct Teacher {
  ModelConfig config;
  ParameterLayout layout;
  PoolVector<float> parameters;
  QuantizationOptions quantization;
};

struct EngineOptions {
  std::string device = "cpu";  // or "cuda", "cuda:N"; of several ranks it is theirs
  TrainRanks ranks;
  TrainPrecision precision = TrainPrecision::kBf16;
  int n_threads = 0;  // of the processor; 0: all
  GraphOptions graph;
  OptimizerOptions optimizer;
  bool keeps_average = false;
  // Where the parameters are adapters (ParameterLayout::make_adapters): of this model, which outlives the engine.
  const FrozenBase* base = nullptr;
  float lora_scale = 1;
  const Teacher* teacher = nullptr;  // null: there is none; outlives the engine
  DistillationOptions distillation;
};

// Of one step: sums over the tokens that count, and the norm of the gradients.
struct StepSums {
  double loss = 0;  // the cross-entropy
  double gradient_norm = 0;
  double logits_divergence = 0, attention_divergence = 0;  // from the teacher, without their weights
};
struct CodeShares {
  double flipped = 0;  // of ternary codes, since they were counted last
  double zeros = 0;
};

// The parameters of one model with their gradients, moments and moving average, and the work of a training step on
// them: on the processor or on a GPU. The host has an image of everything that a checkpoint keeps; where the device has
// memory of its own, fetch() and send() copy between the two. Everything is deterministic. One caller at a time;
// std::bad_alloc passes through. Where other processes have ranks too, all of them make the same calls.
class TrainEngine {
 public:
  virtual ~TrainEngine() = default;

  // The host's image, in the process of the first rank. Its bytes may be changed, with send() afterwards.
  PoolVector<float>& parameters() { return parameters_; }
  PoolVector<float>& average() { return average_; }  // empty without keeps_average
  virtual std::vector<Optimizer::State> optimizer_states() = 0;
  virtual Status fetch() { return ok(); }
  virtual Status send() { return ok(); }

  // Quantises the weights for what follows, those of the moving average where `averaged`.
  virtual Status prepare(const LayerQuantization& quantization, bool averaged) = 0;
  // The sum of the losses of the targets that count, of one part: [n_sequences, n_positions] ids. Of several ranks it
  // is the sum of all, whose sequences are handed in one rank's after the other's; the last ranks may have none.
  virtual Result<double> evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) = 0;

  // A step of n_parts: its gradients and its loss begin at 0, each part adds its own, times `factor` for the gradients.
  virtual Status begin_step(int64_t n_parts = 1) = 0;
  virtual Status backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) = 0;
  virtual Result<StepSums> step_sums() = 0;
  virtual Status update(const UpdateRates& rates) = 0;
  // average = keep * average + take * parameters.
  virtual Status move_average(float keep, float take) = 0;

  virtual Result<std::span<const float>> gradients() = 0;
  // Of the weights that prepare() has quantised.
  virtual Result<CodeShares> count_codes() = 0;
  // A linear as the forward pass multiplies with it; valid until the next call.
  virtual Result<TernaryLinear> linear(const WeightSpec& spec) = 0;
  // What weights that stay as they are take beside the parameters: of a frozen base.
  virtual uint64_t frozen_bytes() const { return 0; }
  // What activations take.
  virtual uint64_t activation_bytes() const = 0;

 protected:
  PoolVector<float> parameters_, average_;
};

// The config must have passed check_config; config and layout outlive the engine. Parameters and moments are 0.
// kUnsupported for a device that this build or machine does not have and for what a device does not compute.
Result<std::unique_ptr<TrainEngine>> make_train_engine(const ModelConfig& config, const ParameterLayout& layout,
                                                       const EngineOptions& options);

}  // namespace bitnet
