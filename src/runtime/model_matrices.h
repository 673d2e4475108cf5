#pragma once

#include "model/model.h"
#include "model/weights.h"

#include <memory>

namespace bitnet {

// Where a loaded model keeps the matrix of a linear layer or table of its list.
inline std::unique_ptr<Matrix>& matrix_of(ModelImpl& model, const WeightSpec& spec) {
  if (spec.role == WeightRole::kTokenEmbedding) return model.token_embedding;
  if (spec.role == WeightRole::kOutput) return model.output;
  LayerWeights& layer = model.layers[size_t(spec.layer)];
  switch (spec.role) {
    case WeightRole::kQ: return layer.q.weight;
    case WeightRole::kK: return layer.k.weight;
    case WeightRole::kV: return layer.v.weight;
    case WeightRole::kO: return layer.o.weight;
    case WeightRole::kGate: return layer.gate.weight;
    case WeightRole::kUp: return layer.up.weight;
    default: return layer.down.weight;
  }
}

}  // namespace bitnet
