#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/half_math.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/wgmma.cuh"

// Flash attention of prompts on Hopper. Two warpgroups have 64 queries each, of two heads that share a key head or of
// one head; a third copies tiles of keys and values, two pages each, to a ring in shared memory. Scores of the next
// tile are on their way while values of this one are added, and one warpgroup's exponentials overlap the other's
// products.
namespace bitnet::cuda {
namespace {

constexpr int kQueries = 64;  // of a warpgroup
constexpr int kPages = 2;
constexpr int kKeys = kPages * kPagePositions;  // of a tile
constexpr int kConsumers = 256;
constexpr int kProducers = 128;
constexpr int kThreads = kConsumers + kProducers;
constexpr int kStages = 3;
constexpr int kLag = 1;                    // tiles on their way before the first of them is announced
constexpr int kPanel_bytes = kKeys * 128;  // 64 dimensions of all keys, swizzled as wgmma wants it

template <int kDim>
constexpr int kTile_bytes = kDim / 64 * kPanel_bytes;
template <int kDim>
constexpr size_t kShared_bytes = size_t(kStages) * 2 * kTile_bytes<kDim> + 1024;

#if BN_HAS_WGMMA
template <int kN>
__device__ inline void pin(float (&x)[kN]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kN>
__device__ inline void pin(uint32_t (&x)[kN][4]) {
#pragma unroll
  for (int i = 0; i < kN; ++i) asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3])::"memory");
}

// Keys to the first half of a stage, values to the second.
template <int kDim>
__device__ void produce(const PromptAttention& call, uint8_t* memory, uint64_t* full, uint64_t* empty, int kv_head,
                        int n_tiles, int n_seen, int tid) {
  constexpr int kPieces = kDim / 8, kRowStep = kProducers / kPieces;
  static_assert(kRowStep % 8 == 0);
  const int row0 = tid / kPieces, piece = tid % kPieces;
  const int place = piece / 8 * kPanel_bytes + row0 * 128 + ((piece % 8 ^ (row0 & 7)) << 4);
  const auto announce = [&](int tile) {
    proxy_fence();
    barrier_arrive(full + tile % kStages);
  };
  for (int tile = 0; tile < n_tiles; ++tile) {
    if (tile >= kStages) barrier_wait(empty + tile % kStages, uint32_t((tile / kStages - 1) & 1));
    uint8_t* const to = memory + tile % kStages * (2 * kTile_bytes<kDim>)+place;
#pragma unroll
    for (int page = 0; page < kPages; ++page) {
      // Rows that nobody has seen repeat the last one: their products are masked.
      const int first = min(tile * kKeys + page * kPagePositions, (n_seen - 1) / kPagePositions * kPagePositions);
      const int last = n_seen - 1 - first;
      const int64_t at = cache_row(call.cache, kv_head, first) * kDim + piece * 8;
#pragma unroll
      for (int plane = 0; plane < 2; ++plane) {
        const __half* const from = reinterpret_cast<const __half*>(plane == 0 ? call.cache.k : call.cache.v) + at;
#pragma unroll
        for (int row = 0; row < kPagePositions; row += kRowStep) {
          async_copy16(to + plane * kTile_bytes<kDim> + (page * kPagePositions + row) * 128,
                       from + min(row0 + row, last) * kDim);
        }
      }
    }
    async_commit();
    if (tile >= kLag) {
      async_wait<kLag>();
      announce(tile - kLag);
    }
  }
  async_wait<0>();
  for (int tile = max(n_tiles - kLag, 0); tile < n_tiles; ++tile) announce(tile);
}

// One warpgroup's queries with all keys that the last of them has seen.
template <int kDim>
struct Queries {
  uint32_t q[kDim / 16][4];
  uint32_t weights[kKeys / 16][4];
  float scores[kKeys / 2], out[kDim / 2];  // of rows g and g + 8: eight columns in four registers
  float largest[2], sum[2], shrink[2];
  int first_position;  // of row g

  __device__ void load(const PromptAttention& call, int head, int first_token, int g, int t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = min(first_token + g + 8 * half, call.n_tokens - 1);
      const __half* const row = call.q + (int64_t(token) * call.n_heads + head) * kDim + 2 * t;
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i) {
        q[i][half] = __float_as_uint(load1(reinterpret_cast<const float*>(row + 16 * i)));
        q[i][2 + half] = __float_as_uint(load1(reinterpret_cast<const float*>(row + 16 * i + 8)));
      }
      largest[half] = -INFINITY;
      sum[half] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[i] = 0.0f;
    first_position = call.first_position + first_token + g;
  }
  __device__ void multiply_keys(uint32_t keys) {
    const uint64_t descriptor = swizzled_descriptor(keys);
    pin(q);
    pin(scores);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      const uint64_t at = descriptor + uint64_t(i / 4 * (kPanel_bytes / 16) + i % 4 * 2);
      if (i == 0) {
        wgmma_f16<true, false>(scores, q[i], at);
      } else {
        wgmma_f16<false, false>(scores, q[i], at);
      }
    }
    wgmma_commit();
  }
  __device__ void add_values(uint32_t values) {
    const uint64_t descriptor = transposed_descriptor(values, kPanel_bytes);
    pin(weights);
    pin(out);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      wgmma_f16<false, true>(out, weights[i], descriptor + uint64_t(i * (16 * 128 / 16)));
    }
    wgmma_commit();
  }
  // Scores become weights, not yet rounded.
  __device__ void exponentials(int tile, int t) {
    if ((tile + 1) * kKeys > first_position - int(threadIdx.x) % 32 / 4 + 1) {
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) {
        const int key = tile * kKeys + i / 4 * 8 + 2 * t + i % 2;
        if (key > first_position + i / 2 % 2 * 8) scores[i] = -INFINITY;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float m = largest[half];
#pragma unroll
      for (int i = 2 * half; i < kKeys / 2; i += 4) m = fmaxf(m, fmaxf(scores[i], scores[i + 1]));
      m = fmaxf(m, __shfl_xor_sync(kFullWarp, m, 1));
      m = fmaxf(m, __shfl_xor_sync(kFullWarp, m, 2));
      shrink[half] = exp2_fast(largest[half] - m);
      largest[half] = m;
      float sums[2] = {sum[half] * shrink[half], 0.0f};
#pragma unroll
      for (int i = 2 * half; i < kKeys / 2; i += 4) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          scores[i + e] = exp2_fast(scores[i + e] - m);
          sums[e] += scores[i + e];
        }
      }
      sum[half] = sums[0] + sums[1];
    }
  }
  __device__ void take_weights() {
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[i] *= shrink[i / 2 % 2];
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) weights[i][j] = half_pair(scores[8 * i + 2 * j], scores[8 * i + 2 * j + 1]);
    }
  }
  __device__ void put_out(const PromptAttention& call, int head, int first_token, int g, int t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float s = sum[half];
      s += __shfl_xor_sync(kFullWarp, s, 1);
      s += __shfl_xor_sync(kFullWarp, s, 2);
      const float inverse = 1.0f / s;
      const int token = first_token + g + 8 * half;
      if (token >= call.n_tokens) continue;
      float* const to = call.out + (int64_t(token) * call.n_heads + head) * kDim + 2 * t;
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        *reinterpret_cast<float2*>(to + 8 * j) =
            make_float2(out[4 * j + 2 * half] * inverse, out[4 * j + 2 * half + 1] * inverse);
      }
    }
  }
};
#endif

// kPairs: the warpgroups have two heads; else two blocks of queries.
template <int kDim, bool kPairs>
__global__ void __launch_bounds__(kThreads, 1) wgmma_attention_kernel(const __grid_constant__ PromptAttention call) {
#if BN_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t raw[];
  __shared__ __align__(8) uint64_t full[kStages], empty[kStages];
  constexpr int kBlock = kPairs ? kQueries : 2 * kQueries;
  const int tid = int(threadIdx.x), warp = __shfl_sync(kFullWarp, tid / 32, 0), lane = tid % 32;
  uint8_t* const memory = raw + (1024 - shared_address(raw) % 1024) % 1024;
  const int first = (int(gridDim.x) - 1 - int(blockIdx.x)) * kBlock;  // the longest first
  const int n_seen = call.first_position + min(first + kBlock, call.n_tokens), n_tiles = (n_seen + kKeys - 1) / kKeys;
  const int first_head = int(blockIdx.y) * (kPairs ? 2 : 1);
  const int kv_head = first_head / (call.n_heads / int(call.cache.n_kv_heads));
  if (tid == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&full[i], kProducers);
      barrier_init(&empty[i], kConsumers / 32);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (warp >= kConsumers / 32) {
    give_registers<40>();
    wait_for_dependencies();
    produce<kDim>(call, memory, full, empty, kv_head, n_tiles, n_seen, tid - kConsumers);
  } else {
    take_registers<232>();
    const int group = warp / 4, g = lane / 4, t = lane % 4;
    const int head = first_head + (kPairs ? group : 0), first_token = first + (kPairs ? 0 : group * kQueries);
    const uint32_t base = shared_address(memory);
    const auto keys_at = [&](int tile) { return base + uint32_t(tile % kStages * (2 * kTile_bytes<kDim>)); };
    const auto wait_full = [&](int tile) { barrier_wait(full + tile % kStages, uint32_t(tile / kStages & 1)); };
    wait_for_dependencies();
    Queries<kDim> mine;
    mine.load(call, head, first_token + warp % 4 * 16, g, t);
    wait_full(0);
    mine.multiply_keys(keys_at(0));
    wgmma_wait<0>();
    pin(mine.scores);
    mine.exponentials(0, t);
    mine.take_weights();
    for (int tile = 0; tile + 1 < n_tiles; ++tile) {
      wait_full(tile + 1);
      mine.multiply_keys(keys_at(tile + 1));
      mine.add_values(keys_at(tile) + kTile_bytes<kDim>);
      wgmma_wait<1>();
      pin(mine.scores);
      mine.exponentials(tile + 1, t);
      wgmma_wait<0>();
      pin(mine.out);
      pin(mine.weights);
      if (lane == 0) barrier_arrive(empty + tile % kStages);
      mine.take_weights();
    }
    mine.add_values(keys_at(n_tiles - 1) + kTile_bytes<kDim>);
    wgmma_wait<0>();
    pin(mine.out);
    launch_dependents();
    mine.put_out(call, head, first_token + warp % 4 * 16, g, t);
  }
#endif
}

template <int kDim, bool kPairs>
cudaError_t launch(const Launcher& launcher, const PromptAttention& call) {
  constexpr int kBlock = kPairs ? kQueries : 2 * kQueries;
  const dim3 grid(unsigned((call.n_tokens + kBlock - 1) / kBlock), unsigned(call.n_heads / (kPairs ? 2 : 1)));
  return launch_kernel(launcher, grid, dim3(kThreads), kShared_bytes<kDim>, wgmma_attention_kernel<kDim, kPairs>, call);
}

}  // namespace

cudaError_t prompt_attention_wgmma(const Launcher& launcher, const PromptAttention& call) {
  const bool pairs = call.n_heads / call.cache.n_kv_heads % 2 == 0;
  if (call.cache.head_dim == 128) return pairs ? launch<128, true>(launcher, call) : launch<128, false>(launcher, call);
  return pairs ? launch<64, true>(launcher, call) : launch<64, false>(launcher, call);
}

}  // namespace bitnet::cuda
