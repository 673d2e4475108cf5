#pragma once

#include "base/result.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet {

// How the linears of a model in training are quantised (docs/training.md has the formulas).
enum class WeightScale : uint8_t {
  kAbsmean,  // mean |w|, of the matrix or of each group of columns
  kLearned,  // a step that is trained with the weights (LSQ)
};
struct QuantizationOptions {
  bool enabled = true;  // false: weights and activations stay as they are
  WeightScale scale = WeightScale::kAbsmean;
  int64_t group_cols = 0;  // columns that share a scale; 0: the whole matrix shares one
  // A weight becomes one of -levels ... levels times mean |w| / sqrt(levels); 1 is ternary.
  int levels = 1;
  // x + lambda * (Q(x) - x) for weights and activations alike; 1 is quantised, 0 is not.
  double lambda = 1.0;

  // What the integer products can compute: codes times one scale.
  bool is_exact() const { return enabled && lambda == 1.0 && group_cols == 0 && levels == 1; }
};

// Below this a scale is taken as this, for weights and activations.
constexpr double kScaleFloor = 1e-5;

// The options of each layer at one moment of a run.
class LayerQuantization {
 public:
  LayerQuantization() : LayerQuantization(QuantizationOptions()) {}
  LayerQuantization(const QuantizationOptions& all) : layers_{all} {}  // NOLINT: all layers alike
  explicit LayerQuantization(std::vector<QuantizationOptions> layers) : layers_(std::move(layers)) {}

  const QuantizationOptions& of(int64_t layer) const {
    return layers_[size_t(layer) < layers_.size() ? size_t(layer) : layers_.size() - 1];
  }
  // Those that differ by place; the last one also holds for what is behind it.
  std::span<const QuantizationOptions> layers() const { return layers_; }
  bool is_exact() const {
    return std::all_of(layers_.begin(), layers_.end(), [](const QuantizationOptions& o) { return o.is_exact(); });
  }

 private:
  std::vector<QuantizationOptions> layers_;  // at least one
};

// How a run's linears come to be quantised. Each layer has a clock of steps, which starts layer_steps after that of the
// layer before it: a layer whose clock has not started is float, one whose clock is running has the width that `bits`
// has then, with a lambda that rises over the first steps of the clock.
struct QuantizationSchedule {
  struct Width {
    int bits = 0;
    int64_t n_steps = 0;
  };
  QuantizationOptions finished;
  int64_t layer_steps = 0;  // 0: all clocks start with the run
  bool last_first = false;  // the last layer's clock starts first
  std::vector<Width> widths;
  int64_t lambda_warmup = 0;

  // Of step 1, 2, ...
  LayerQuantization at(int64_t step, int64_t n_layers) const;
  // The first step from which on everything is as in `finished`.
  int64_t ends_at(int64_t n_layers) const;
};

// "8:500,4:500,3:250": bits (2 to 8) and steps, from left to right.
Result<std::vector<QuantizationSchedule::Width>> parse_widths(std::string_view text);

}  // namespace bitnet
