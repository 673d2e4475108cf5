#pragma once

#include "base/host_device.h"

#include <cmath>
#include <cstdint>

namespace bitnet {

// Counter-based random numbers: value i of stream s under a seed is a pure function, so work can be split over
// threads and machines in any way with the same result. The mixer is SplitMix64's finaliser
// (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), applied twice.
class CounterRng {
 public:
  BN_HOST_DEVICE explicit CounterRng(uint64_t seed, uint64_t stream = 0)
      : key_(mix(seed ^ mix(stream + 0x9e3779b97f4a7c15u))) {}

  BN_HOST_DEVICE uint64_t bits(uint64_t counter) const { return mix(key_ + (counter + 1) * 0x9e3779b97f4a7c15u); }
  // In [0, 1), 53 bits.
  BN_HOST_DEVICE double uniform(uint64_t counter) const { return double(bits(counter) >> 11) * 0x1p-53; }
  // Standard normal (Box-Muller), a pure function of the counter.
  double normal(uint64_t counter) const {
    const double u = double((bits(2 * counter) >> 11) + 1) * 0x1p-53;
    const double v = uniform(2 * counter + 1);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  BN_HOST_DEVICE static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t key_;
};

}  // namespace bitnet
