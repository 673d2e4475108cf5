#pragma once

#include "kernels/bit_linear.h"
#include "train/cpu/cpu_ops.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace bitnet {

struct BitLinearTrainingOptions {
  QuantizationOptions quantization;
  int n_threads = 0;         // 0: all processors
  int64_t max_tokens = 512;  // of one forward pass
};

// A BitLinear layer by itself, for training: float32 weights that are quantised on the way forward and get their
// gradients straight through the quantisers (docs/training.md). Built on the operations that train models
// (train/cpu/cpu_ops.h). One caller at a time.
class BitLinearTraining {
 public:
  static Result<BitLinearTraining> create(int64_t d_out, int64_t d_in, const BitLinearTrainingOptions& options = {});

  int64_t d_in() const { return d_in_; }
  int64_t d_out() const { return d_out_; }
  // Zeros at first. Whoever changes weights or step calls prepare() before the next pass.
  std::span<float> weights() { return weights_; }      // [d_out, d_in]
  std::span<float> gradients() { return gradients_; }  // of them; backward() adds to it
  float& step() { return step_[0]; }                   // of WeightScale::kLearned: the scale, above 0
  float& step_gradient() { return step_[1]; }
  Status prepare();

  // x [n_tokens, d_in] to y [n_tokens, d_out].
  Status forward(Rows<float> x, Rows<float> y);
  // Of the last forward pass: dy [n_tokens, d_out] to dx [n_tokens, d_in].
  Status backward(Rows<float> dy, Rows<float> dx);

  // The inference form of the weights as prepare() left them: the same outputs, bit by bit. One scale a matrix and a
  // lambda of 1 only, as integer products want it.
  Result<BitLinear> inference(const BitLinearOptions& options = {}) const;
  std::span<const uint8_t> codes() const { return weight_.codes; }  // w + 1, where inference() has a form
  float alpha() const { return weight_.alpha; }

 private:
  BitLinearTraining() = default;
  int64_t d_out_ = 0, d_in_ = 0;
  BitLinearTrainingOptions options_;
  std::unique_ptr<CpuOps> ops_;
  std::vector<float> weights_, gradients_;
  std::vector<float> step_ = {1.0f, 0.0f};  // and its gradient
  CpuOps::Weight weight_;
  CpuOps::Input input_;
};

}  // namespace bitnet
