#pragma once

#include "base/result.h"
#include "train/checkpoint_store.h"
#include "train/data/dataset.h"
#include "train/engine.h"
#include "train/train_options.h"
#include "train/watch/metrics_log.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace bitnet {

// How a step went.
struct StepReport {
  int64_t step = 0, n_steps = 0;
  double loss = 0, lr = 0, gradient_norm = 0, tokens_per_s = 0;
  double flipped_share = 0;  // of ternary codes, since the last step that was logged; of logged steps only
  double zero_share = 0;     // of ternary codes
  // From the teacher, a token.
  double logits_divergence = 0, attention_divergence = 0;
  bool skipped = false;  // not finite, or a spike: the weights are as they were
};
struct TrainCallbacks {
  std::function<void(const StepReport&)> on_step;           // each step
  std::function<void(int64_t step, double loss)> on_valid;  // nats a token
  std::function<void(int64_t step, const std::string& text)> on_text;
  std::function<void(const std::string&)> on_notice;
  std::function<bool()> keep_going;  // false: a checkpoint is written and the run ends with kInterrupted
};

// One run, on the processor, a GPU or several. Everything that later steps depend on is in its checkpoints, so that a
// run that is stopped and resumed, with any number of threads, ends with the same bytes. Of several processes each has
// a trainer, all of which make the same calls; that of the first rank alone has parameters and writes files. One thread
// at a time.
class Trainer {
 public:
  // Opens the data and makes the first weights. The options must have passed check_train_options. Where a launcher has
  // started several processes (ranks/rank_place.h), it waits for them.
  static Result<std::unique_ptr<Trainer>> create(const TrainOptions& options);

  const ModelConfig& config() const { return config_; }
  const ParameterLayout& layout() const { return layout_; }
  // As of the last checkpoint or export where the device has memory of its own.
  const PoolVector<float>& parameters() const { return engine_->parameters(); }
  bool leads() const { return ranks_.leads(); }  // the process of the first rank
  int64_t step() const { return step_; }
  int64_t n_steps() const { return options_.steps; }  // of the whole run
  int64_t n_tokens_per_step() const { return options_.batch * options_.n_ctx * options_.accumulation; }
  int64_t n_parameters() const;  // of the model, adapters included
  double flops_per_token() const;
  uint64_t memory_bytes() const;      // of weights, gradients and moments
  uint64_t activation_bytes() const;  // of what a backward pass wants of its forward pass
  // What of these is the teacher's.
  struct TeacherCost {
    int64_t n_parameters = 0;
    uint64_t memory_bytes = 0;
    double flops_per_token = 0;
  };
  std::optional<TeacherCost> teacher_cost() const;

  // The rest of the run: from the newest checkpoint of the run's folder, if there is one, to the exported model.
  Status run(const TrainCallbacks& callbacks);

  // One step without logs and checkpoints.
  Result<StepReport> train_step();
  // The mean loss of the first sequences of the validation data.
  Result<double> validate();
  // A Hugging Face folder of the weights as they are, of their moving average where there is one; of a run that trains
  // adapters, a folder of the adapter.
  Status export_folder(const std::string& folder);
  // All processes are through and may end, each in its own time. run() has done it where it gives no error.
  Status finish();

 private:
  Trainer(const TrainOptions& options, TrainRanks ranks, Dataset dataset)
      : options_(options), ranks_(std::move(ranks)), dataset_(std::move(dataset)) {}
  Status read_checkpoint(const TrainCallbacks& callbacks, Json& found);
  Status resume(const TrainCallbacks& callbacks);
  Status export_adapter(const std::string& folder);
  Status save();
  Status log_step(const StepReport& report);
  Status write_text(const TrainCallbacks& callbacks);
  struct Sequences {
    uint64_t first = 0;  // among those of the split
    std::vector<int32_t> ids, targets;
    int64_t n_counted = 0;  // targets
  };
  Status load_sequences(Split split, uint64_t first, int64_t n_sequences, Sequences& out);
  int64_t n_sequences_together() const { return ranks_.n * share_.n_sequences; }  // of a part of all ranks
  // Whether any process says so.
  Result<bool> any(bool mine) const;
  // What is exported goes to the host's image, and stays as codes on the device.
  Status fetch_served();
  Status write_folder(const std::string& folder);
  Status average_weights();
  Status open_teacher(EngineOptions& engine);
  // Quantises the weights, `averaged` those of the moving average; `finished` as the exported model computes.
  Status prepare(bool averaged, bool finished);
  bool has_average() const { return options_.ema > 0; }
  bool trains_adapter() const { return base_.has_value(); }
  bool counts_codes() const { return config_.ternary && !trains_adapter(); }  // those that flip

  TrainOptions options_;
  TrainRanks ranks_;
  RankShare share_;
  Dataset dataset_;
  std::optional<Vocabulary> vocabulary_;
  ModelConfig config_;
  std::optional<FrozenBase> base_;  // of adapters
  ParameterLayout layout_;
  ScheduleOptions schedule_;
  QuantizationSchedule quantization_;
  DistillationOptions distillation_;
  std::unique_ptr<Teacher> teacher_;  // null: none
  std::unique_ptr<TrainEngine> engine_;
  std::optional<CheckpointStore> store_;
  std::optional<MetricsLog> log_;
  Sequences part_, ahead_;  // of a validation; of the step to come
  std::vector<int32_t> sequence_;
  std::vector<uint8_t> counted_;

  int64_t step_ = 0;       // done
  int64_t n_updates_ = 0;  // of them not skipped
  uint64_t position_ = 0;  // sequences of the training data that have been seen
  double usual_norm_ = 0;  // moving average of the gradient's norm, for the spike guard
  static constexpr int64_t kMaxBadSteps = 10;
  int64_t n_bad_ = 0;      // steps in a row that were not finite
  bool prepared_ = false;  // the engine has the codes of the parameters
};

}  // namespace bitnet
