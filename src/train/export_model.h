#pragma once

#include "base/result.h"
#include "model/config.h"
#include "tokenizer/vocabulary.h"
#include "train/core/parameters.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace bitnet {

// A linear as the trainer's forward pass multiplies with it.
struct TernaryLinear {
  std::span<const uint8_t> codes;  // w + 1, [n_out, n_in]
  float alpha = 1;
};

struct TrainedModel {
  const ModelConfig& config;
  const ParameterLayout& layout;
  const float* parameters = nullptr;
  const std::optional<Vocabulary>& vocabulary;
  std::function<Result<TernaryLinear>(const WeightSpec& spec)> linear;  // where config.ternary
};

// Writes a Hugging Face folder that holds exactly what the trainer computes with: packed codes and their scales,
// everything else in float32. Files of an earlier export are replaced, config.json last.
Status export_trained_folder(const TrainedModel& model, const std::string& folder);

}  // namespace bitnet
