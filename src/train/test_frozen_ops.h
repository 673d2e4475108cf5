#pragma once

#include "train/core/plain_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

// For the tests of this room.
namespace bitnet {

// The straight-through estimator's own function: what the quantisers add is recorded once and then constant, so that
// its derivatives exist and are those that the backward pass claims to give.
class FrozenOps : public PlainOps<double> {
 public:
  explicit FrozenOps(ThreadPool& pool) : PlainOps<double>(pool) {}

  using PlainOps<double>::freeze;  // a weight
  void freeze() { frozen_ = true; }
  void rewind() { n_weights_ = n_inputs_ = 0; }

  void prepare(const double* latent, const double* step, int64_t n_out, int64_t n_in, Weight& weight) {
    if (!frozen_) {
      PlainOps<double>::prepare(latent, step, n_out, n_in, weight);
      std::vector<double> added(weight.effective.size());
      for (size_t i = 0; i < added.size(); ++i) {
        added[i] =
            step == nullptr ? weight.effective[i] - latent[i] : weight.effective[i] / *step - clip(latent[i] / *step);
      }
      weights_.push_back(std::move(added));
      return;
    }
    const std::vector<double>& added = weights_[n_weights_++];
    weight.effective.resize(added.size());
    for (size_t i = 0; i < added.size(); ++i) {
      weight.effective[i] = step == nullptr ? latent[i] + added[i] : *step * (clip(latent[i] / *step) + added[i]);
    }
  }
  void quantize(R x, Input& input) {
    if (!frozen_) {
      PlainOps<double>::quantize(x, input);
      std::vector<double> added(input.effective.size());
      for (size_t i = 0; i < added.size(); ++i) added[i] = input.effective[i] - x.data[i];
      inputs_.push_back(std::move(added));
      return;
    }
    const std::vector<double>& added = inputs_[n_inputs_++];
    input.values = x;
    input.n_rows = x.n_rows;
    input.n_cols = x.n_cols;
    input.effective.resize(added.size());
    for (size_t i = 0; i < added.size(); ++i) input.effective[i] = x.data[i] + added[i];
  }

 private:
  static double clip(double v) { return std::min(std::max(v, -1.0), 1.0); }
  std::vector<std::vector<double>> weights_, inputs_;
  size_t n_weights_ = 0, n_inputs_ = 0;
  bool frozen_ = false;
};

}  // namespace bitnet
