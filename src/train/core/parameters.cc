#include "train/core/parameters.h"

#include "base/checked.h"
#include "base/rng.h"
#include "model/lora_adapter.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

ParameterLayout::ParameterLayout(int64_t n_layers) {
  for (auto* offsets : {&offsets_, &step_offsets_, &lora_a_offsets_, &lora_b_offsets_}) {
    offsets->assign(index(WeightRole(0), n_layers), -1);
  }
}

void ParameterLayout::add(ParameterSlice slice, std::vector<int64_t>& offsets) {
  slice.offset = n_values_;
  n_values_ += round_up(slice.n_values, kParameterAlignment);
  offsets[index(slice.spec.role, slice.spec.layer)] = slice.offset;
  slices_.push_back(std::move(slice));
}

void ParameterLayout::add(const WeightSpec& spec) { add({spec.hf_name, spec, false, 0, spec.n_values()}, offsets_); }

void ParameterLayout::align(int64_t n) { n_values_ = round_up(n_values_, n); }

ParameterLayout ParameterLayout::make(const ModelConfig& config, bool learned_steps) {
  ParameterLayout layout(config.n_layers);
  for (const WeightSpec& spec : list_weights(config)) {
    layout.add(spec);
    if (!learned_steps || spec.kind != WeightKind::kLinear) continue;
    layout.add({spec.hf_name + ".step", spec, true, 0, 1}, layout.step_offsets_);
  }
  return layout;
}

ParameterLayout ParameterLayout::make_tables_and_norms(const ModelConfig& config) {
  ParameterLayout layout(config.n_layers);
  for (const WeightSpec& spec : list_weights(config)) {
    if (spec.kind != WeightKind::kLinear) layout.add(spec);
  }
  return layout;
}

ParameterLayout ParameterLayout::make_adapters(const ModelConfig& config, int64_t rank,
                                               std::span<const WeightRole> targets) {
  ParameterLayout layout(config.n_layers);
  layout.lora_rank_ = rank;
  for (const WeightSpec& spec : list_weights(config)) {
    if (std::find(targets.begin(), targets.end(), spec.role) == targets.end()) continue;
    WeightSpec a = spec, b = spec;
    a.shape = {rank, spec.shape[1]};
    b.shape = {spec.shape[0], rank};
    layout.add({lora_a_name(spec), a, false, 0, a.n_values()}, layout.lora_a_offsets_);
    layout.add({lora_b_name(spec), b, false, 0, b.n_values()}, layout.lora_b_offsets_);
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

void initialize_adapters(const ParameterLayout& layout, uint64_t seed, float* parameters) {
  std::fill_n(parameters, layout.n_values(), 0.0f);
  for (size_t i = 0; i < layout.slices().size(); ++i) {
    const ParameterSlice& slice = layout.slices()[i];
    if (slice.offset != layout.lora_a_offset(slice.spec.role, slice.spec.layer)) continue;
    const double bound = 1.0 / std::sqrt(double(slice.spec.shape[1]));
    const CounterRng rng(seed, i);
    float* const values = parameters + slice.offset;
    for (int64_t j = 0; j < slice.n_values; ++j) values[j] = float((2 * rng.uniform(uint64_t(j)) - 1) * bound);
  }
}

}  // namespace bitnet
