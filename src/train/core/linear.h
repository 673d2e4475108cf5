#pragma once

#include <cstdint>

// What belongs to a linear besides its weight.
namespace bitnet {

// What gradients of a linear's parameters, or of a norm's (weight), are added to. Null: not wanted, or not there.
template <class Real>
struct WeightGradient {
  Real* weight = nullptr;
  Real* step = nullptr;  // where the scale is learned
  Real* lora_a = nullptr;
  Real* lora_b = nullptr;
};

// A low-rank adapter: y += scale * b (a x), x as it is before its quantisation. None where a is null.
template <class Real>
struct Adapter {
  const Real* a = nullptr;  // [rank, n_in]
  const Real* b = nullptr;  // [n_out, rank]
  int64_t rank = 0;
  Real scale = 1;
};

}  // namespace bitnet
