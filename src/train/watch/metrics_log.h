#pragma once

#include "base/result.h"
#include "train/watch/append_file.h"
#include "train/watch/event_file.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bitnet {

// Names that `bitnet train report` knows; any other name is logged and plotted too.
namespace metric {
inline constexpr std::string_view kLoss = "loss";             // nats a token, of the step's batch
inline constexpr std::string_view kValidLoss = "valid_loss";  // nats a token
inline constexpr std::string_view kLearningRate = "learning_rate";
inline constexpr std::string_view kGradientNorm = "gradient_norm";  // of all parameters, before clipping
inline constexpr std::string_view kTokensPerSecond = "tokens_per_s";
inline constexpr std::string_view kMfu = "mfu";                     // model FLOPs utilisation, 0 to 1
inline constexpr std::string_view kFlippedShare = "flipped_share";  // of ternary codes, since the last time logged
inline constexpr std::string_view kZeroShare = "zero_share";        // of ternary codes that are 0
inline constexpr std::string_view kLogitsDivergence = "logits_divergence";        // from the teacher, nats a token
inline constexpr std::string_view kAttentionDivergence = "attention_divergence";  // of relations, nats a token
inline constexpr std::string_view kScalePrefix = "scale/";  // "scale/layers.0.q_proj": mean |w| of a matrix
}  // namespace metric

// What a run says of itself while it trains, in its folder: metrics.jsonl, a line a step; samples.jsonl, a line a text;
// and the same as a TensorBoard event file (docs/formats/run.md). Every call is on its way to the disk when it returns,
// and other programs may read along. One thread at a time; movable.
class MetricsLog {
 public:
  // Goes on behind `resume_step`: lines of later steps, and a line that was cut off, are removed. -1: everything.
  static Result<MetricsLog> open(const std::string& folder, int64_t resume_step);

  // Names are not empty and differ from each other, "step" and "time_s". A value that is not finite is written as null.
  Status log(int64_t step, std::span<const Metric> metrics);
  // A text that the model wrote at this step; bytes that are not UTF-8 become U+FFFD.
  Status log_text(int64_t step, std::string_view name, std::string_view text);

 private:
  MetricsLog(AppendFile metrics, AppendFile samples, EventFile events)
      : metrics_(std::move(metrics)), samples_(std::move(samples)), events_(std::move(events)) {}
  AppendFile metrics_;
  AppendFile samples_;
  EventFile events_;
};

}  // namespace bitnet
