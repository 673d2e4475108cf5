#pragma once

#include "base/thread_pool.h"
#include "model/config.h"
#include "model/weights.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// One weight in the flat buffer of all parameters.
struct ParameterSlice {
  std::string name;      // as in a Hugging Face folder; a learned step adds ".step"
  WeightSpec spec;       // of an adapter's A or B: the linear's, with its own shape
  bool is_step = false;  // the learned step [1] of spec's matrix
  int64_t offset = 0;    // in values, a multiple of kParameterAlignment
  int64_t n_values = 0;
  // Matrices are decayed, embedding and head included; norms and steps are not.
  bool decays() const { return spec.kind != WeightKind::kVector && !is_step; }
};
constexpr int64_t kParameterAlignment = 16;

// Where each weight of list_weights() lies in one buffer; gradients and an optimiser's moments share the places.
// Values between two weights are zero and stay zero. Built once, then immutable.
class ParameterLayout {
 public:
  ParameterLayout() = default;
  // `learned_steps`: each linear has a step of its own behind its weight.
  static ParameterLayout make(const ModelConfig& config, bool learned_steps = false);
  // What is no linear of a layer.
  static ParameterLayout make_tables_and_norms(const ModelConfig& config);
  // The adapters of these linears alone: A [rank, n_in] and B [n_out, rank], named as in PEFT's files.
  static ParameterLayout make_adapters(const ModelConfig& config, int64_t rank, std::span<const WeightRole> targets);

  // One of no weights yet, and a weight behind those that it has.
  explicit ParameterLayout(int64_t n_layers);
  void add(const WeightSpec& spec);
  // The next weight's place is a multiple of n, which is one of kParameterAlignment.
  void align(int64_t n);

  int64_t n_values() const { return n_values_; }  // of the buffer
  int64_t n_parameters() const;                   // without what aligns them
  const std::vector<ParameterSlice>& slices() const { return slices_; }
  // -1 where the model does not have it. layer is -1 outside the layers.
  int64_t offset(WeightRole role, int64_t layer) const { return offsets_[index(role, layer)]; }
  int64_t step_offset(WeightRole role, int64_t layer) const { return step_offsets_[index(role, layer)]; }
  int64_t lora_a_offset(WeightRole role, int64_t layer) const { return lora_a_offsets_[index(role, layer)]; }
  int64_t lora_b_offset(WeightRole role, int64_t layer) const { return lora_b_offsets_[index(role, layer)]; }
  int64_t lora_rank() const { return lora_rank_; }  // 0: there are no adapters

 private:
  static constexpr int64_t kRoles = int64_t(WeightRole::kDownInputNorm) + 1;
  static size_t index(WeightRole role, int64_t layer) { return size_t((layer + 1) * kRoles + int64_t(role)); }
  void add(ParameterSlice slice, std::vector<int64_t>& offsets);
  std::vector<ParameterSlice> slices_;
  std::vector<int64_t> offsets_, step_offsets_, lora_a_offsets_, lora_b_offsets_;
  int64_t n_values_ = 0, lora_rank_ = 0;
};

// Weights to begin with: matrices normal with deviation `deviation`, those that write into the residual stream divided
// by sqrt(2 n_layers) (GPT-2's rule), norms 1, steps such that the codes are those of absmean. A pure function of the
// seed, with a pool or without.
void initialize_parameters(const ModelConfig& config, const ParameterLayout& layout, uint64_t seed, double deviation,
                           float* parameters, ThreadPool* pool = nullptr);

// Adapters to begin with, that change nothing: A uniform within 1 / sqrt(n_in), as PEFT begins, and B 0.
void initialize_adapters(const ParameterLayout& layout, uint64_t seed, float* parameters);

}  // namespace bitnet
