#pragma once

#include "base/rng.h"

#include <bit>
#include <cstdint>

namespace bitnet {

// A permutation of [0, n) as a pure function: no table, so any place of a shuffled order is found at once whatever n
// is. A Feistel network over the least 4^k >= n values; results outside [0, n) go through it again until one is inside
// (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Immutable; thread-safe.
class Permutation {
 public:
  // n > 0. The same seed and stream give the same permutation.
  Permutation(uint64_t n, uint64_t seed, uint64_t stream)
      : n_(n), half_bits_(n <= 1 ? 1 : int(std::bit_width(n - 1) + 1) / 2), rng_(seed, stream) {}

  uint64_t operator()(uint64_t i) const {
    do {
      i = encrypt(i);
    } while (i >= n_);
    return i;
  }

 private:
  static constexpr uint64_t kRounds = 6;

  uint64_t encrypt(uint64_t i) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = i >> half_bits_, right = i & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (rng_.bits(round << 32 | right) & mask);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  uint64_t n_;
  int half_bits_;
  CounterRng rng_;
};

}  // namespace bitnet
