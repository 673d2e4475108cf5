#include "quant/hadamard.h"

#include "base/rng.h"

#include <cmath>

namespace bitnet {

void walsh_hadamard(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
}

namespace {

void transform(float* x, int64_t n) {
  walsh_hadamard(x, n);
  const float norm = 1.0f / std::sqrt(float(n));
  for (int64_t i = 0; i < n; ++i) x[i] *= norm;
}

// The signs are those of a column within its block, the same for every row.
void flip(float* x, int64_t n, uint64_t seed) {
  const CounterRng rng(seed);
  for (int64_t i = 0; i < n; ++i) {
    if ((rng.bits(uint64_t(i)) & 1) != 0) x[i] = -x[i];
  }
}

}  // namespace

void hadamard(float* x, int64_t n_values, int64_t block, uint64_t seed) {
  for (int64_t at = 0; at < n_values; at += block) {
    flip(x + at, block, seed);
    transform(x + at, block);
  }
}

void inverse_hadamard(float* x, int64_t n_values, int64_t block, uint64_t seed) {
  for (int64_t at = 0; at < n_values; at += block) {
    transform(x + at, block);
    flip(x + at, block, seed);
  }
}

}  // namespace bitnet
