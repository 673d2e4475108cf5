#pragma once

#include "memory/pool_vector.h"
#include "train/cuda/cuda_stages.h"
#include "train/engine.h"

#include <cstdint>

namespace bitnet {

// The codes of all linears of a GPU's model, as a trainer wants to see them.
class CudaCodes {
 public:
  explicit CudaCodes(CudaContext& context) : context_(context) {}
  // After all linears have been planned; the largest has `largest` values.
  void plan(int64_t largest);
  Result<CodeShares> count();
  // Valid until the next call.
  Result<TernaryLinear> linear(const Stages<CudaContext>::Weight& weight);

 private:
  CudaContext& context_;
  uint8_t *last_ = nullptr, *linear_ = nullptr;
  unsigned long long* counts_ = nullptr;
  PoolVector<uint8_t> codes_;
  bool counted_ = false;
};

}  // namespace bitnet
