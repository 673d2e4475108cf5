#include "train/bit_linear_training.h"

#include <algorithm>
#include <utility>

namespace bitnet {

Result<BitLinearTraining> BitLinearTraining::create(int64_t d_out, int64_t d_in,
                                                    const BitLinearTrainingOptions& options) {
  if (d_out < 1 || d_in < 1 || d_out > kMaxTernaryCols || d_in > kMaxTernaryCols) {
    return invalid_argument("a layer of [{}, {}], expected 1 to {} inputs and outputs", d_out, d_in, kMaxTernaryCols);
  }
  if (options.max_tokens < 1) return invalid_argument("max_tokens is {}, expected 1 or more", options.max_tokens);
  const int64_t group = options.quantization.group_cols;
  if (group < 0 || (group > 0 && d_in % group != 0)) {
    return invalid_argument("groups of {} columns do not divide rows of {}", group, d_in);
  }
  BitLinearTraining layer;
  layer.d_out_ = d_out;
  layer.d_in_ = d_in;
  layer.options_ = options;
  ModelConfig config;
  config.d_model = d_in;
  config.d_ff = d_out;
  const AttentionShape no_attention = {1, options.max_tokens, 1, 1, 1};
  BN_ASSIGN_OR_RETURN(layer.ops_, CpuOps::create(config, no_attention, options.n_threads));
  layer.ops_->set_quantization(options.quantization);
  layer.weights_.resize(size_t(d_out * d_in));
  layer.gradients_.resize(size_t(d_out * d_in));
  return layer;
}

Status BitLinearTraining::prepare() {
  const bool learned = options_.quantization.scale == WeightScale::kLearned;
  ops_->prepare(weights_.data(), learned ? step_.data() : nullptr, d_out_, d_in_, weight_);
  return ops_->take_status();
}

Status BitLinearTraining::forward(Rows<float> x, Rows<float> y) {
  if (weight_.latent != weights_.data()) return invalid_argument("the weights have not been prepared");
  if (x.n_cols != d_in_ || y.n_cols != d_out_ || x.n_rows != y.n_rows || x.n_rows > options_.max_tokens) {
    return invalid_argument("a layer of [{}, {}] for {} tokens got [{}, {}] and [{}, {}]", d_out_, d_in_,
                            options_.max_tokens, x.n_rows, x.n_cols, y.n_rows, y.n_cols);
  }
  ops_->quantize(x, input_);
  ops_->linear(input_, weight_, y);
  return ops_->take_status();
}

Status BitLinearTraining::backward(Rows<float> dy, Rows<float> dx) {
  if (dy.n_cols != d_out_ || dx.n_cols != d_in_ || dy.n_rows != dx.n_rows || dy.n_rows != input_.n_rows) {
    return invalid_argument("gradients of [{}, {}] and [{}, {}] after {} tokens through a layer of [{}, {}]", dy.n_rows,
                            dy.n_cols, dx.n_rows, dx.n_cols, input_.n_rows, d_out_, d_in_);
  }
  ops_->linear_backward(input_, weight_, dy, dx, false, {gradients_.data(), &step_[1]});
  return ops_->take_status();
}

Result<BitLinear> BitLinearTraining::inference(const BitLinearOptions& options) const {
  if (!options_.quantization.is_exact()) {
    return unsupported("weights with a scale for each group, or half quantised, are no ternary matrix with one scale");
  }
  if (weight_.codes.empty()) return invalid_argument("the weights have not been prepared");
  TernaryScales scales;
  scales.tensor = weight_.alpha;
  return BitLinear::create(d_out_, d_in_, {weight_.codes.begin(), weight_.codes.end()}, scales, options);
}

}  // namespace bitnet
