#pragma once

#include "kernels/cuda/device_math.cuh"

#include <cstdint>

// Floats on their way between the blocks of a kernel that all run at once. They travel in words with the epoch that
// they belong to: whoever reads until the epoch is right has the values, without a barrier. What a step takes is the
// reading of them by every block, so words are as full as they can be: 16 bytes are written and read as one.
namespace bitnet::cuda {

constexpr int kGroup = 8;       // floats that are sent together
constexpr int kGroupWords = 3;  // words {three floats, epoch}; the last float of a group is nobody's

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ int thread_index() { return int(threadIdx.x); }

struct Word {
  uint64_t low = 0, high = 0;
  __device__ float at(int i) const {
    return __uint_as_float(i == 0 ? uint32_t(low) : i == 1 ? uint32_t(low >> 32) : uint32_t(high));
  }
  __device__ uint32_t epoch() const { return uint32_t(high >> 32); }
};
__device__ inline Word look(const uint4* at) {
  Word word;
  asm volatile("{.reg .b128 q; ld.relaxed.gpu.global.b128 q, [%2]; mov.b128 {%0, %1}, q;}"
               : "=l"(word.low), "=l"(word.high)
               : "l"(at)
               : "memory");
  return word;
}
__device__ inline void put_word(uint4* to, float a, float b, float c, uint32_t epoch) {
  const uint64_t low = uint64_t(__float_as_uint(b)) << 32 | __float_as_uint(a);
  const uint64_t high = uint64_t(epoch) << 32 | __float_as_uint(c);
  asm volatile("{.reg .b128 q; mov.b128 q, {%1, %2}; st.relaxed.gpu.global.b128 [%0], q;}" ::"l"(to), "l"(low),
               "l"(high)
               : "memory");
}

// The eight values of a group, which lanes kStride apart have, by a whole warp with several groups. `to`: the lane's
// group in the first plane of n_groups words; the second and third words of each group are in planes of their own.
template <int kStride>
__device__ inline void send_group(uint4* to, int n_groups, float value, uint32_t epoch, bool sends = true) {
  const int lane = thread_index() % 32, first = lane / (kGroup * kStride) * (kGroup * kStride);
  const int place = (lane - first) / kStride, word = min(place, kGroupWords - 1);
  const float a = __shfl_sync(kFullWarp, value, first + 3 * word * kStride);
  const float b = __shfl_sync(kFullWarp, value, first + (3 * word + 1) * kStride);
  const float c = __shfl_sync(kFullWarp, value, first + min(3 * word + 2, kGroup - 1) * kStride);
  if (sends && lane % kStride == 0 && place < kGroupWords) put_word(to + place * n_groups, a, b, c, epoch);
}

// The groups first, first + step, ... of planes of n_words words; those from `end` on are zeros. First it asks for one
// word only, again and again: what all blocks ask for all the time would be more than the memory gives, and would delay
// those who still have to send. Then it asks for all before it waits for one.
template <int kGroups>
__device__ __forceinline__ void receive(const uint4* from, int first, int step, int end, int n_words, uint32_t epoch,
                                        float (&x)[kGroups][kGroup]) {
  const uint4* const last = from + first + (kGroupWords - 1) * n_words;
  while (first < end && look(last).epoch() != epoch) {
  }
  Word words[kGroups][kGroupWords];
  const auto ask = [&](int j, int i) { return look(from + first + j * step + i * n_words); };
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
#pragma unroll
    for (int i = 0; i < kGroupWords; ++i) {
      if (first + j * step < end) words[j][i] = ask(j, i);
    }
  }
  for (bool missing = true; missing;) {
    missing = false;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
#pragma unroll
      for (int i = 0; i < kGroupWords; ++i) {
        if (first + j * step < end && words[j][i].epoch() != epoch) {
          words[j][i] = ask(j, i);
          missing = true;
        }
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
#pragma unroll
    for (int e = 0; e < kGroup; ++e) x[j][e] = first + j * step < end ? words[j][e / 3].at(e % 3) : 0.0f;
  }
}

// Scores travel alone, in words of eight bytes.
__device__ inline void send_score(uint64_t* to, float score, uint32_t epoch) {
  const uint64_t word = uint64_t(epoch) << 32 | __float_as_uint(score);
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}
struct ScorePair {
  uint64_t first = 0, second = 0;
  __device__ bool has_arrived(uint32_t epoch, bool both) const {
    return uint32_t(first >> 32) == epoch && (!both || uint32_t(second >> 32) == epoch);
  }
};
__device__ inline ScorePair look(const uint64_t* at) {
  ScorePair pair;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
               : "=l"(pair.first), "=l"(pair.second)
               : "l"(at)
               : "memory");
  return pair;
}
#endif

}  // namespace bitnet::cuda
