#pragma once

#include "kernels/cuda/exchange.cuh"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/weight_ring.cuh"

// What the blocks of the kernel of all layers (token_layers.cu) have and do together: products with ternary weights.
// Of their warps kRingWarps multiply, one sums the squares of norms, one fetches weights.
namespace bitnet::cuda {

constexpr int kWorkers = kRingWarps * 32;
constexpr int kNormWarp = kRingWarps, kFetchWarp = kRingWarps + 1;
constexpr int kMaxRowTiles = 8;  // of a product, in a block
constexpr int kPartialStride = kRingWarps + 1;
constexpr int kRowThreads = 2;  // that add up what the warps have of a row

// What follows from a call, computed on the host.
struct LayersPlan {
  // Where a layer's floats on their way lie: each step's outputs, attention's; words of 16 bytes, `scores` of 8.
  int outputs[kLayerSteps], attn, scores, n_words;
  int n_out_groups[kLayerSteps], inputs[kLayerSteps], n_cols[kLayerSteps], n_col_tiles[kLayerSteps];
  // Arrays behind the ring's slots in a block's shared memory, in bytes.
  int row, codes, partial, keys, values, turned, score_rows, layers, shared_bytes;
  int n_kv_heads, heads_per_kv, head_dim, row_bytes;
  int n_score_parts, key_rows;  // of the positions; of a part, at most
  int n_dim_units;              // of a head
  int d_q, d_kv, n_pairs;
  int page_rows, head_rows;  // of the cache
  const float *cos, *sin;
  float eps;
  uint4* exchange;
};

#if __CUDA_ARCH__ >= 900
// What a block has beside the dynamic shared memory.
struct BlockState {
  LayersPlan plan;
  int first_tile[kLayerSteps], n_tiles[kLayerSteps];  // of the rows; gate's are up's too
  RingBarriers barriers;
  float maxima[2][kRingWarps];
  float factor;
};
__device__ __forceinline__ BlockState& block() {
  __shared__ BlockState state;
  return state;
}
__device__ __forceinline__ uint8_t* block_memory() {
  extern __shared__ __align__(128) uint8_t memory[];
  return memory;
}
__device__ __forceinline__ float* block_floats(int place) { return reinterpret_cast<float*>(block_memory() + place); }

// The barriers want a warp's threads together: after code that each leaves when its own words have come, or that some
// skip, __syncwarp() has to precede them.
__device__ inline void sync_workers() { asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory"); }
__device__ inline bool any_worker(bool x) {
  uint32_t any;
  asm volatile("{.reg .pred p, q; setp.ne.u32 p, %1, 0; bar.red.or.pred q, 1, %2, p; selp.u32 %0, 1, 0, q;}"
               : "=r"(any)
               : "r"(uint32_t(x)), "n"(kWorkers)
               : "memory");
  return any != 0;
}
// With the warp of the norms: 2 gives it a row, 3 has its factor.
template <int kBarrier>
__device__ inline void sync_with_norms() {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kWorkers + 32) : "memory");
}

// 1 / sqrt(lane sum of squares / n_cols + eps) (numerics.md 5) of the block's row, by the warp of the norms. Each
// addition waits for the one before it; what they add is loaded far ahead of them.
__device__ inline float norm_factor(int n_cols) {
  const float* const from = block_floats(block().plan.row) + thread_index() % 16 * square_stride(n_cols);
  const int n = n_cols / 16, last = (n - 1) / 4 * 4;
  constexpr int kAhead = 8;
  float lane = 0.0f;
  float4 next[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) next[j] = *reinterpret_cast<const float4*>(from + min(4 * j, last));
  int i = 0;
  for (; i + 4 * kAhead <= n; i += 4 * kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const float4 now = next[j];
      next[j] = *reinterpret_cast<const float4*>(from + min(i + 4 * (kAhead + j), last));
      lane += now.x * now.x;
      lane += now.y * now.y;
      lane += now.z * now.z;
      lane += now.w * now.w;
    }
  }
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {  // the rest is there already
    const int left = n - i - 4 * j;
    if (left > 0) lane += next[j].x * next[j].x;
    if (left > 1) lane += next[j].y * next[j].y;
    if (left > 2) lane += next[j].z * next[j].z;
    if (left > 3) lane += next[j].w * next[j].w;
  }
  return 1.0f / sqrtf(sum_lanes(lane) / float(n_cols) + block().plan.eps);
}

// code_word() of what scale takes to at most 127: with the rounding constant added, a float ends in the code's bits.
__device__ __forceinline__ uint32_t code_word_within(const float4& y, float scale) {
  const auto code = [&](float v) { return __float_as_uint(v * scale + kRoundMagic); };
  return __byte_perm(__byte_perm(code(y.x), code(y.y), 0x0040), __byte_perm(code(y.z), code(y.w), 0x0040), 0x5410);
}

// The sums of n <= kTiles row tiles from tile `first` on, with this warp's codes, to the partial sums. Products into
// one accumulator wait for each other, so that those of several tiles, and two of each, take turns.
template <int kTiles>
__device__ __forceinline__ void multiply_tiles(int first_slot, int first, int n, int n_slots, int n_col_tiles,
                                               int sum) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  const BlockState& state = block();
  const uint32_t* codes =
      reinterpret_cast<const uint32_t*>(block_memory() + state.plan.codes) + warp * 32 + lane % 4 * 8;
  int acc[kTiles][2][4] = {};
#pragma unroll 2
  for (int i = 0; warp + i * kRingWarps < n_col_tiles; ++i, codes += kRingWarps * 32) {
    const uint4 low = *reinterpret_cast<const uint4*>(codes), high = *reinterpret_cast<const uint4*>(codes + 4);
    uint4 words[kTiles];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      int slot = first_slot + (first + min(j, n - 1)) * n_slots + i;  // fewer than kSlots behind the first
      if (slot >= kSlots) slot -= kSlots;
      words[j] = reinterpret_cast<const uint4*>(block_memory() + slot * kSlot_bytes)[warp * 32 + lane];
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][0], words[j].x, low.x, low.y);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][1], words[j].y, low.z, low.w);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][0], words[j].z, high.x, high.y);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][1], words[j].w, high.z, high.w);
  }
  if (lane % 4 != 0) return;  // every column of the product is the one token
  int* const to = reinterpret_cast<int*>(block_memory() + state.plan.partial) +
                  (first * kTileRows + lane / 4) * kPartialStride + warp;
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    if (j >= n) continue;
    to[j * kTileRows * kPartialStride] = acc[j][0][0] + acc[j][1][0] - sum;
    to[(j * kTileRows + 8) * kPartialStride] = ((acc[j][0][2] + acc[j][1][2]) >> 2) - sum;
  }
}

// The same for n row tiles, of the ring's slots from n_taken on, kTiles at once where there are more than two.
template <int kTiles>
__device__ __forceinline__ void multiply(int n_taken, int n, int n_col_tiles, int sum) {
  const int lane = thread_index() % 32, first_slot = slot_of(n_taken);
  const int n_slots = (n_col_tiles + kSlotTiles - 1) / kSlotTiles;
  if (lane < n * n_slots) wait_for_slot(block().barriers, n_taken + lane);
  __syncwarp();
  if (kTiles > 2 && n > 2) {
#pragma unroll 1
    for (int first = 0; first < n; first += kTiles) {
      multiply_tiles<kTiles>(first_slot, first, min(n - first, kTiles), n_slots, n_col_tiles, sum);
    }
  } else {
#pragma unroll 1
    for (int first = 0; first < n; first += 2) {
      multiply_tiles<2>(first_slot, first, min(n - first, 2), n_slots, n_col_tiles, sum);
    }
  }
  __syncwarp();
}

// Sums of n row tiles with quantized(norm(x)), to the partial sums; gives 1 / scale. x comes from other blocks, or is
// `plain` where `sent` is null; no norm where its weights are null. As in vector_product.cu the products are computed
// with codes that leave the norm's factor out while that is summed, and again should the exact codes differ.
template <int kFours>
__device__ __forceinline__ float product_phase(int n_taken, const uint4* sent, const float* plain, uint32_t epoch,
                                               const float* norm, int n_cols, int n, int n_col_tiles) {
  BlockState& state = block();
  float* const row = block_floats(state.plan.row);
  const int tid = thread_index(), warp = tid / 32, lane = tid % 32, stride = square_stride(n_cols);
  uint32_t* const codes =
      reinterpret_cast<uint32_t*>(block_memory() + state.plan.codes) + warp * 32 + fragment_word(lane);
  const auto column = [&](int i) { return (warp + i * kRingWarps) * kTileCols + lane * 4; };
  const auto place = [&](int column) { return column % 16 * stride + column / 16; };  // a lane of the sum in a row
  float4 weights[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    weights[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (norm != nullptr && column(i) < n_cols) weights[i] = __ldg(reinterpret_cast<const float4*>(norm + column(i)));
  }
  if (sent != nullptr) {
    constexpr int kGroups = kFours / 2;  // a thread's: kFours * kTileCols * kRingWarps columns of kGroup * kWorkers
    const int n_groups = n_cols / kGroup;
    receive<kGroups>(sent, n_groups, epoch, tid, kWorkers,
                     [&](int i, int e, float x) { row[(i % 2 * kGroup + e) * stride + i / 2] = x; });
  } else {
    for (int i = tid; i < n_cols; i += kWorkers) row[place(i)] = load1(plain + i);
  }
  __syncwarp();
  sync_with_norms<2>();
  float4 y[kFours];
  // y and its largest magnitude, by all workers.
  const auto normed = [&](float r, float* maxima) {
    float absmax = 0.0f;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      y[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (column(i) < n_cols) {
        const float* const from = row + place(column(i));
        y[i] = make_float4(from[0], from[stride], from[2 * stride], from[3 * stride]);
      }
      if (norm != nullptr) y[i] = scaled(y[i], r, weights[i]);
      absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(y[i].x), fabsf(y[i].y)), fmaxf(fabsf(y[i].z), fabsf(y[i].w))));
    }
    // Not negative and no NaN, so ordered like their bits.
    uint32_t bits = __reduce_max_sync(kFullWarp, __float_as_uint(absmax));
    if (lane == 0) maxima[warp] = __uint_as_float(bits);
    sync_workers();
    bits = __reduce_max_sync(kFullWarp, lane < kRingWarps ? __float_as_uint(maxima[lane]) : 0u);
    return __uint_as_float(bits);
  };
  const float guess = normed(1.0f, state.maxima[0]);
  float scale = norm == nullptr ? quantizing_scale(guess) : 127.0f / fmaxf(guess, 1e-30f);
#pragma unroll 1
  for (bool exact = norm == nullptr;; exact = true) {
    int sum = 0;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const uint32_t word = code_word_within(y[i], scale);
      codes[i * kRingWarps * 32] = word;
      sum = __dp4a(int(word), 0x01010101, sum);
    }
    __syncwarp();
    multiply<kFours == 2 ? 4 : 2>(n_taken, n, n_col_tiles, __reduce_add_sync(kFullWarp, sum));
    if (exact) {
      sync_workers();
      if (norm == nullptr) sync_with_norms<3>();
      break;
    }
    sync_with_norms<3>();
    scale = quantizing_scale(normed(state.factor, state.maxima[1]));
    bool differs = false;
#pragma unroll
    for (int i = 0; i < kFours; ++i) differs |= code_word_within(y[i], scale) != codes[i * kRingWarps * 32];
    if (!any_worker(differs)) break;
  }
  const int n_slots = n * ((n_col_tiles + kSlotTiles - 1) / kSlotTiles);
  give_back_slots(state.barriers, n_taken, n_slots, lane);
  return 1.0f / scale;
}

// y of row `row` of the block's tiles, by its kRowThreads threads.
__device__ inline float product_of(int row, float inv_scale, float alpha) {
  static_assert(kRingWarps % kRowThreads == 0);
  const int* const from = reinterpret_cast<const int*>(block_memory() + block().plan.partial) + row * kPartialStride +
                          thread_index() % kRowThreads * (kRingWarps / kRowThreads);
  int total = 0;
#pragma unroll
  for (int i = 0; i < kRingWarps / kRowThreads; ++i) total += from[i];
  total += __shfl_xor_sync(kFullWarp, total, 1);
  return (float(total) * inv_scale) * alpha;
}
#endif

}  // namespace bitnet::cuda
