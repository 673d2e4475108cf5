#pragma once

#include "format/safetensors.h"
#include "model/config.h"
#include "train/core/optimizer.h"
#include "train/core/parameters.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

// A recorded training run: config and hyper-parameters, checked against every tensor's shape.
class ReplayFile {
 public:
  static Result<ReplayFile> open(const std::string& path);

  const ModelConfig& config() const { return config_; }
  const OptimizerOptions& optimizer() const { return optimizer_; }
  double beta1() const { return beta1_; }  // unrounded, as eps()
  double beta2() const { return beta2_; }
  double eps() const { return eps_; }
  double lr() const { return lr_; }
  double weight_decay() const { return weight_decay_; }
  int64_t n_steps() const { return n_steps_; }
  int64_t n_sequences() const { return n_sequences_; }
  int64_t n_positions() const { return n_positions_; }

  // group: "init", "grad0" or "final". Filled into the places of `layout`.
  Result<std::vector<float>> read(const std::string& group, const ParameterLayout& layout) const;
  Result<std::vector<int32_t>> tokens() const;  // [n_steps, n_sequences, n_positions + 1]
  Result<std::vector<float>> losses() const;    // [n_steps]

  // "layers.0.q" of the weight that list_weights() calls so.
  static std::string short_name(const WeightSpec& spec);

 private:
  explicit ReplayFile(SafetensorsFile file) : file_(std::move(file)) {}
  Status read_config();
  Status check_tensors() const;
  Result<const StoredTensor*> find(const std::string& name) const;
  Result<Shape> shape_of(const std::string& name, size_t n_dimensions) const;
  Result<double> number(const char* key) const;
  Result<int64_t> whole_number(const char* key) const;
  Status read_floats(const std::string& name, float* out) const;

  SafetensorsFile file_;
  ModelConfig config_;
  OptimizerOptions optimizer_;
  double lr_ = 0, weight_decay_ = 0, beta1_ = 0, beta2_ = 0, eps_ = 0;
  int64_t n_steps_ = 0, n_sequences_ = 0, n_positions_ = 0;
};

}  // namespace bitnet
