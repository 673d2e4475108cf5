#pragma once

#include <cstdint>

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
  // x + lambda * (Q(x) - x) for weights and activations alike; 1 is quantised, 0 is not.
  double lambda = 1.0;

  // What the integer products can compute: codes times one scale.
  bool is_exact() const { return enabled && lambda == 1.0 && group_cols == 0; }
};

// Below this a scale is taken as this, for weights and activations.
constexpr double kScaleFloor = 1e-5;

}  // namespace bitnet
