#include "train/core/parameters.h"

#include "base/checked.h"
#include "base/rng.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

ParameterLayout::ParameterLayout(int64_t n_layers) {
  const size_t n_places = index(WeightRole(0), n_layers);
  offsets_.assign(n_places, -1);
  step_offsets_.assign(n_places, -1);
}

void ParameterLayout::add(const WeightSpec& spec, bool is_step) {
  const int64_t n = is_step ? 1 : spec.n_values();
  (is_step ? step_offsets_ : offsets_)[index(spec.role, spec.layer)] = n_values_;
  slices_.push_back({is_step ? spec.hf_name + ".step" : spec.hf_name, spec, is_step, n_values_, n});
  n_values_ += round_up(n, kParameterAlignment);
}

void ParameterLayout::align(int64_t n) { n_values_ = round_up(n_values_, n); }

ParameterLayout ParameterLayout::make(const ModelConfig& config, bool learned_steps) {
  ParameterLayout layout(config.n_layers);
  for (const WeightSpec& spec : list_weights(config)) {
    layout.add(spec);
    if (learned_steps && spec.kind == WeightKind::kLinear) layout.add(spec, true);
  }
  return layout;
}

int64_t ParameterLayout::n_parameters() const {
  int64_t n = 0;
  for (const ParameterSlice& slice : slices_) n += slice.n_values;
  return n;
}

void initialize_parameters(const ModelConfig& config, const ParameterLayout& layout, uint64_t seed, double deviation,
                           float* parameters, ThreadPool* pool) {
  std::fill_n(parameters, layout.n_values(), 0.0f);
  const double residual = deviation / std::sqrt(2.0 * double(config.n_layers));
  for (size_t i = 0; i < layout.slices().size(); ++i) {
    const ParameterSlice& slice = layout.slices()[i];
    float* const values = parameters + slice.offset;
    if (slice.is_step) {  // its matrix stands in front of it
      const ParameterSlice& matrix = layout.slices()[i - 1];
      double sum = 0;
      for (int64_t j = 0; j < matrix.n_values; ++j) sum += std::fabs(double(parameters[matrix.offset + j]));
      values[0] = float(sum / double(matrix.n_values));
      continue;
    }
    if (slice.spec.kind == WeightKind::kVector) {
      std::fill_n(values, slice.n_values, 1.0f);
      continue;
    }
    const bool writes_residual = slice.spec.role == WeightRole::kO || slice.spec.role == WeightRole::kDown;
    const CounterRng rng(seed, i);
    const auto fill = [&](int64_t begin, int64_t end, int) {
      for (int64_t j = begin; j < end; ++j) {
        values[j] = float(rng.normal(uint64_t(j)) * (writes_residual ? residual : deviation));
      }
    };
    if (pool != nullptr) {
      pool->parallel_for(slice.n_values, fill);
    } else {
      fill(0, slice.n_values, 0);
    }
  }
}

}  // namespace bitnet
