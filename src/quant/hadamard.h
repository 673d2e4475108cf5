#pragma once

#include <cstdint>

namespace bitnet {

// x <- H x for a power of two n, H the Walsh-Hadamard matrix, not normalised: stages h = 1, 2, ... n / 2 of
// (a, b) -> (a + b, a - b) over pairs h apart.
void walsh_hadamard(float* x, int64_t n);

// x <- H D x / sqrt(n) for each run of n = `block` values (a power of two that divides n_values): D flips the signs
// that `seed` draws. An orthogonal rotation that spreads outliers over their block.
// Turned back by inverse_hadamard with the same block and seed.
void hadamard(float* x, int64_t n_values, int64_t block, uint64_t seed);
void inverse_hadamard(float* x, int64_t n_values, int64_t block, uint64_t seed);

}  // namespace bitnet
