#pragma once

#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/device_math.cuh"

namespace bitnet::cuda {

// Orders logits like Sampler::largest() and puts one that is not finite first, so that it is seen.
__device__ inline unsigned long long ordered_logit(float logit, int id) {
  uint32_t bits = __float_as_uint(logit);
  if ((bits & 0x7f800000u) == 0x7f800000u) {
    bits = 0xffffffffu;
  } else {
    if (bits == 0x80000000u) bits = 0;  // -0 equals 0
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
  }
  return static_cast<unsigned long long>(bits) << 32 | uint32_t(~id);
}

__device__ inline unsigned ordered(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float unordered(unsigned bits) { return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits); }

// The end of a head kernel, for all threads of the `n_blocks` blocks of one token: the best of their keys is the
// result.
__device__ inline void finish_best(const TokenHead& call, int token, unsigned n_blocks, unsigned long long best) {
  __shared__ unsigned long long bests[32];
  for (int step = 16; step > 0; step /= 2) {
    const unsigned long long other = __shfl_xor_sync(kFullWarp, best, step);
    best = other > best ? other : best;
  }
  if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (unsigned i = 1; i < blockDim.x / 32; ++i) best = bests[i] > best ? bests[i] : best;
  HeadRow* const row = call.rows + token;
  atomicMax(&row->best, best);
  __threadfence();
  if (atomicAdd(&row->n_blocks_done, 1u) + 1 != n_blocks) return;
  // The last block: every other one's best is in.
  __threadfence();
  best = atomicExch(&row->best, 0ull);
  row->n_blocks_done = 0;
  row->floor = row->inverted_floor = 0;
  const int id = int(~uint32_t(best));
  const uint32_t bits = uint32_t(best >> 32);
  StepControl* const control = call.control;
  StepResult* const result = call.results + (control == nullptr ? token : control->position % 2);
  result->id = id;
  result->logit = bits == 0xffffffffu ? __uint_as_float(0x7fc00000u) : unordered(bits);
  if (control != nullptr) {
    control->token = id;
    control->position += 1;
  }
  __threadfence_system();
}

}  // namespace bitnet::cuda
