#pragma once

#include "base/result.h"
#include "memory/pool_vector.h"
#include "model/checkpoint.h"
#include "model/lora_adapter.h"
#include "train/core/parameters.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

struct FrozenLinear {
  std::vector<uint8_t> codes;  // w + 1, [n_out, n_in]
  float alpha = 1;
};

// A ternary model whose weights stay as its file has them while adapters of it are trained. Immutable; thread-safe.
class FrozenBase {
 public:
  // kUnsupported, naming the tensor, where a linear is not ternary with one scale and int8 inputs.
  static Result<FrozenBase> open(const std::string& path, int n_threads);

  const std::string& path() const { return checkpoint_.path(); }
  const LoraBase& identity() const { return identity_; }
  const ParameterLayout& layout() const { return layout_; }           // of values(): tables and norms
  const PoolVector<float>& values() const { return values_; }         // in float32
  Result<FrozenLinear> linear(WeightRole role, int64_t layer) const;  // read from the file

 private:
  explicit FrozenBase(Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)) {}
  Checkpoint checkpoint_;
  LoraBase identity_;
  ParameterLayout layout_;
  PoolVector<float> values_;
};

}  // namespace bitnet
