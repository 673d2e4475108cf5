#include "train/cuda/cuda_update.h"

#include "train/cuda/train_kernels.h"

#include <cmath>

namespace bitnet {

Status check_cuda_options(const ParameterLayout& layout, const EngineOptions& options) {
  const OptimizerKind kind = options.optimizer.kind;
  if (kind != OptimizerKind::kAdamW && kind != OptimizerKind::kSgd) {
    return unsupported("optimizer is {}: on a GPU there are adamw and sgd",
                       kind == OptimizerKind::kMuon ? "muon" : "adamw8");
  }
  for (const ParameterSlice& slice : layout.slices()) {
    if (slice.is_step) return unsupported("weight_scale is learned: on a GPU it is absmean");
  }
  return ok();
}

Status check_cuda_quantization(const LayerQuantization& quantization) {
  for (const QuantizationOptions& layer : quantization.layers()) {
    if (layer.group_cols > 0) return unsupported("group_cols is {}: on a GPU a matrix has one scale", layer.group_cols);
    if (layer.levels != 1) return unsupported("bits are given: on a GPU a layer's weights are float or ternary");
  }
  return ok();
}

void update_values(cudaStream_t stream, const OptimizerOptions& o, const UpdateRates& rates, const UpdatedValues& v) {
  if (o.kind != OptimizerKind::kAdamW) {
    cuda::sgd(stream, float(rates.gradient_factor), o.momentum, float(rates.weight_decay), float(rates.lr), v.n,
              v.decays, v.gradients, v.first, v.parameters);
    return;
  }
  cuda::AdamwStep step;
  step.factor = float(rates.gradient_factor);
  step.beta1 = o.beta1;
  step.beta2 = o.beta2;
  step.eps = o.eps;
  step.lr_decay = float(1.0 - rates.lr * rates.weight_decay);
  step.rate = float(rates.lr / (1.0 - std::pow(double(o.beta1), double(rates.step))));
  step.root = float(1.0 / std::sqrt(1.0 - std::pow(double(o.beta2), double(rates.step))));
  cuda::adamw(stream, step, v.n, v.decays, v.gradients, v.first, v.second, v.parameters);
}

}  // namespace bitnet
