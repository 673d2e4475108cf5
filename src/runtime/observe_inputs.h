#pragma once

#include "base/result.h"
#include "quant/error_metrics.h"
#include "quant/histogram.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// What a linear layer's inputs look like on a text, before they are rounded.
struct InputStatistics {
  std::string weight;  // in a GGUF file
  int64_t n_cols = 0;
  int64_t n_tokens = 0;
  StreamingHistogram histogram;
  std::vector<double> mean_squares;  // [n_cols]: how much a column's weights matter
  ErrorMeter int8, int4, topk;  // of the activation quantisers (quant/activations.h), top-k with 55% of the columns
};

struct ObserveOptions {
  std::span<const int32_t> ids;
  int64_t n_ctx = 256;
  int n_threads = 0;                             // 0: all processors
  std::function<bool(double done)> on_progress;  // false stops (kInterrupted)
};
// Runs the text through the model on the CPU. In order of the model's list of weights.
Result<std::vector<InputStatistics>> observe_inputs(const std::string& model, const ObserveOptions& options);

}  // namespace bitnet
