#pragma once

#include "base/result.h"
#include "bitnet/model.h"
#include "quant/scheme.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

struct PlanOptions {
  std::vector<QuantScheme> linears;  // what a linear layer may become
  std::vector<QuantScheme> tables;   // what embedding and head may become
  uint64_t budget_bytes = 0;         // of all weights' data together, norms included
  std::span<const int32_t> ids;      // calibration text
  int64_t n_ctx = 256;
  int n_threads = 0;                             // 0: all processors
  std::function<bool(double done)> on_progress;  // false stops (kInterrupted)
};

// A scheme for one weight and what it does to the model when nothing else changes.
struct SchemeEffect {
  std::string scheme;
  uint64_t bytes = 0;
  double kl = 0;  // mean KL divergence of the model's predictions on the calibration text, nats a token
};
struct PlannedWeight {
  std::string name;  // in a GGUF file
  Shape shape;
  std::vector<SchemeEffect> schemes;  // that fit the weight
  size_t chosen = 0;
  const SchemeEffect& choice() const { return schemes[chosen]; }
};
struct PrecisionPlan {
  std::vector<PlannedWeight> weights;
  uint64_t bytes = 0;  // of all weights, norms included
  double kl = 0;       // sum over the weights: what the plan is expected to cost
  double nll = 0;      // of the model as it is, nats a token
};

// Which scheme each weight should have so that all of them fit the budget and the model's predictions move least.
//
// Sensitivity is measured: each weight is quantised alone by each scheme and the model runs over the text. A weight
// that is ternary already loses nothing under a ternary scheme. The plan then minimises the sum of these losses within
// the budget (a multiple-choice knapsack, solved exactly up to rounding sizes to 1 / 20000 of the budget). Takes one
// run of the text a weight and lossy scheme. An error says when not even the smallest schemes fit.
Result<PrecisionPlan> plan_precision(const std::string& model, const PlanOptions& options);

// Of each weight the entry to take, for the least sum of losses within `budget_bytes`; nothing where none fits.
std::optional<std::vector<size_t>> choose_schemes(std::span<const PlannedWeight> weights, uint64_t budget_bytes);

}  // namespace bitnet
