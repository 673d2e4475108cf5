#pragma once

#include "kernels/cuda/exchange.cuh"
#include "kernels/cuda/pair_sum.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/weight_ring.cuh"

#include <type_traits>

// What the blocks of the kernel of all layers (token_layers.cu) have and do together: products with ternary weights.
// Of their warps kRingWarps multiply, one fetches weights.
namespace bitnet::cuda {

constexpr int kWorkers = kRingWarps * 32;
constexpr int kFetchWarp = kRingWarps;
constexpr int kChunkCols = 32 * kGroup;  // of a row, that a warp has at a time: a block of the norm's sum
constexpr int kMaxChunks = 3;            // of a warp, in front of down; one in front of the others
constexpr int kMaxRowTiles = 8;          // of a product, in a block
constexpr int kPartialStride = kRingWarps + 1;
constexpr int kRowThreads = 2;  // that add up what the warps have of a row
BN_HOST_DEVICE constexpr int chunks_of(int step) { return step == kStepDown ? kMaxChunks : 1; }

// Of the attention in this kernel (layers_attention.cuh).
constexpr int kMaxHeadsPerKv = 8;
constexpr int kMaxLayersHeadDim = 128;
// Positions whose values have room in a block.
BN_HOST_DEVICE constexpr int layers_positions(TableType type) { return type == TableType::kF16 ? 768 : 384; }
BN_HOST_DEVICE constexpr int element_bytes(TableType type) { return type == TableType::kF16 ? 2 : 4; }

struct LayersShape {
  int d_model = 0, d_q = 0, d_kv = 0, d_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_pairs = 0;
  int n_blocks = 0;
  bool operator==(const LayersShape&) const = default;
};

// What follows from a shape.
struct LayersPlan {
  // Where a layer's floats on their way lie: each step's outputs, attention's; words of 16 bytes, `scores` of 8.
  int outputs[kLayerSteps], attn, scores, n_words;
  int inputs[kLayerSteps], n_cols[kLayerSteps], n_rows[kLayerSteps];
  // Arrays behind the ring's slots in a block's shared memory, in bytes; behind them the layers' weights.
  int codes, partial, keys, values, weights, layers;
  int d_q, d_kv, n_kv_heads, heads_per_kv, head_dim, n_pairs, row_bytes;
  int n_score_parts;                                  // of the positions
  int unit_dims;                                      // of a head's output, that a block sums at once
  int first_tile[kLayerSteps], n_tiles[kLayerSteps];  // this block's rows, where the shape is any
  int n_blocks;
};

BN_HOST_DEVICE constexpr LayersPlan plan_of(TableType type, const LayersShape& shape) {
  LayersPlan p = {};
  p.d_q = shape.d_q;
  p.d_kv = shape.d_kv;
  p.n_kv_heads = shape.n_kv_heads;
  p.heads_per_kv = shape.n_heads / shape.n_kv_heads;
  p.head_dim = shape.head_dim;
  p.n_pairs = shape.n_pairs;
  p.row_bytes = shape.head_dim * element_bytes(type);
  p.n_score_parts = shape.n_blocks > shape.n_kv_heads ? shape.n_blocks / shape.n_kv_heads : 1;
  p.unit_dims = shape.head_dim % 32 == 0 ? 32 : 16;
  p.n_blocks = shape.n_blocks;
  p.n_rows[kStepQkv] = shape.d_q + 2 * shape.d_kv;
  p.n_rows[kStepO] = shape.d_model;
  p.n_rows[kStepGate] = shape.d_ff;
  p.n_rows[kStepDown] = shape.d_model;
  for (int step = 0; step < kLayerSteps; ++step) {
    p.outputs[step] = p.n_words;
    p.n_words += p.n_rows[step] / kGroup * kGroupWords;
  }
  p.attn = p.n_words;
  p.n_words += shape.d_q / kGroup * kGroupWords;
  p.scores = p.n_words;
  p.n_words += shape.n_heads * layers_positions(type) / 2;
  p.inputs[kStepQkv] = p.outputs[kStepDown];
  p.inputs[kStepO] = p.attn;
  p.inputs[kStepGate] = p.outputs[kStepO];
  p.inputs[kStepDown] = p.outputs[kStepGate];
  p.n_cols[kStepQkv] = p.n_cols[kStepGate] = shape.d_model;
  p.n_cols[kStepO] = shape.d_q;
  p.n_cols[kStepDown] = shape.d_ff;
  const auto after = [](int place, int64_t n_bytes) { return place + int((n_bytes + 15) / 16 * 16); };
  p.codes = kSlots * kSlot_bytes;
  p.partial = after(p.codes, kMaxChunks * kRingWarps * kChunkCols);  // a thread writes all of its codes
  p.keys = after(p.partial, kMaxRowTiles * kTileRows * kPartialStride * 4);
  p.values = after(p.keys, n_tiles(layers_positions(type), p.n_score_parts) * (p.row_bytes + 16));
  p.weights = after(p.values, layers_positions(type) * p.unit_dims * element_bytes(type));
  p.layers = after(p.weights, layers_positions(type) * 4);
  return p;
}

// The shape that a kernel is compiled for: any, or that of BitNet b1.58 2B4T on 132 multiprocessors, where all places
// and bounds are constants.
struct AnyShape {};
struct ReferenceShape {
  static constexpr LayersShape kShape = {2560, 2560, 640, 6912, 20, 5, 128, 64, 132};
};

#if __CUDA_ARCH__ >= 900
// What a block has beside the dynamic shared memory.
struct BlockState {
  LayersPlan plan;
  RingBarriers barriers;
  float sums[kMaxChunks * kRingWarps];  // of the chunks' squares
  // Of each warp the value that is the largest when normed, with its weight; z: whether another one comes close.
  float3 peaks[kRingWarps];
  float maxima[kRingWarps];
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

template <TableType kType, class Shape>
__device__ __forceinline__ decltype(auto) the_plan() {
  if constexpr (std::is_same_v<Shape, AnyShape>) {
    return static_cast<const LayersPlan&>(block().plan);
  } else {
    constexpr LayersPlan plan = plan_of(kType, Shape::kShape);
    return LayersPlan(plan);
  }
}
// The row tiles of a step that this block has: parts differ by one tile at most.
struct TilePart {
  int first, n;
};
__device__ __forceinline__ TilePart tile_part(int n_rows, uint32_t n_blocks) {
  const uint32_t n = uint32_t(n_rows / kTileRows), first = blockIdx.x * n / n_blocks;
  return {int(first), int((blockIdx.x + 1) * n / n_blocks - first)};
}
template <TableType kType, class Shape, int kStep>
__device__ __forceinline__ TilePart tiles_of_block() {
  const auto& plan = the_plan<kType, Shape>();
  if constexpr (std::is_same_v<Shape, AnyShape>) {
    return {plan.first_tile[kStep], plan.n_tiles[kStep]};
  } else {
    return tile_part(plan.n_rows[kStep], uint32_t(plan.n_blocks));
  }
}

// The barriers want a warp's threads together: after code that each leaves when its own words have come, or that some
// skip, __syncwarp() has to precede them.
__device__ inline void sync_workers() { asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory"); }

// code_word() of what scale takes to at most 127: with the rounding constant added, a float ends in the code's bits.
__device__ __forceinline__ uint32_t code_word_within(const float4& y, float scale) {
  const auto code = [&](float v) { return __float_as_uint(v * scale + kRoundMagic); };
  return __byte_perm(__byte_perm(code(y.x), code(y.y), 0x0040), __byte_perm(code(y.z), code(y.w), 0x0040), 0x5410);
}

// Where the ring stands: the slot and the parity of its barriers.
struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ RingPlace after(int n) const {  // n <= kSlots
    const int next = slot + n;
    return next < kSlots ? RingPlace{next, parity} : RingPlace{next - kSlots, parity ^ 1};
  }
};

// The sums of n <= kTiles row tiles from tile `first` on, of kSlotsPerTile slots each, with this warp's codes, to the
// partial sums. Products into one accumulator wait for each other, so that those of several tiles, and two of each,
// take turns.
template <int kTiles, int kSlotsPerTile>
__device__ __forceinline__ void multiply_tiles(const RingPlace& place, int first, int n, int n_cols,
                                               const uint32_t* codes, int sum, int* partial) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  codes += warp * 64 + lane % 4 * 8;
  int acc[kTiles][2][4] = {};
#pragma unroll
  for (int i = 0; i < kSlotsPerTile; ++i) {
    const uint4* tiles[kTiles];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int slot = place.after((first + min(j, n - 1)) * kSlotsPerTile + i).slot;
      tiles[j] = reinterpret_cast<const uint4*>(block_memory() + slot * kSlot_bytes) + warp * 64 + lane;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if ((i * kSlotTiles + 2 * warp + half) * kTileCols >= n_cols) break;
      const uint4 low = *reinterpret_cast<const uint4*>(codes + i * kSlotTiles * 32 + half * 32);
      const uint4 high = *reinterpret_cast<const uint4*>(codes + i * kSlotTiles * 32 + half * 32 + 4);
      uint4 words[kTiles];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) words[j] = tiles[j][half * 32];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][0], words[j].x, low.x, low.y);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][1], words[j].y, low.z, low.w);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][0], words[j].z, high.x, high.y);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) mma_codes(acc[j][1], words[j].w, high.z, high.w);
    }
  }
  if (lane % 4 != 0) return;  // every column of the product is the one token
  int* const to = partial + (first * kTileRows + lane / 4) * kPartialStride + warp;
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    if (j >= n) continue;
    to[j * kTileRows * kPartialStride] = acc[j][0][0] + acc[j][1][0] - sum;
    to[(j * kTileRows + 8) * kPartialStride] = ((acc[j][0][2] + acc[j][1][2]) >> 2) - sum;
  }
}

// The largest |(x r) w| over the block's row. Rounding may turn only what is so close in |x w| that it differs in the
// last bits; where no warp has two such values its peak is its largest, whatever r is, and no further barrier is due.
template <int kChunks>
__device__ __forceinline__ float largest_normed(const float (&x)[kChunks][kGroup], const float (&w)[kChunks][kGroup],
                                                float r) {
  BlockState& state = block();
  const int tid = thread_index(), warp = tid / 32, lane = tid % 32;
  float largest = 0.0f;
  bool unclear = false;
  if (lane < kRingWarps) {
    const float3 peak = state.peaks[lane];
    largest = fabsf((peak.x * r) * peak.y);
    unclear = peak.z != 0.0f;
  }
  if (__any_sync(kFullWarp, unclear)) {  // alike in every warp
    largest = 0.0f;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
#pragma unroll
      for (int e = 0; e < kGroup; ++e) largest = fmaxf(largest, fabsf((x[i][e] * r) * w[i][e]));
    }
    // Not negative and no NaN, so ordered like their bits.
    const uint32_t bits = __reduce_max_sync(kFullWarp, __float_as_uint(largest));
    if (lane == 0) state.maxima[warp] = __uint_as_float(bits);
    sync_workers();
    largest = lane < kRingWarps ? state.maxima[lane] : 0.0f;
  }
  return __uint_as_float(__reduce_max_sync(kFullWarp, __float_as_uint(largest)));
}

// This warp's peak, for largest_normed().
template <int kChunks>
__device__ __forceinline__ void put_peak(const float (&x)[kChunks][kGroup], const float (&w)[kChunks][kGroup]) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
#pragma unroll
    for (int e = 0; e < kGroup; ++e) largest = fmaxf(largest, fabsf(x[i][e] * w[i][e]));
  }
  // Not negative and no NaN, so ordered like their bits.
  largest = __uint_as_float(__reduce_max_sync(kFullWarp, __float_as_uint(largest)));
  const float close = largest * 0.999999f;
  float peak_x = 0.0f, peak_w = 0.0f;
  int n_close = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
#pragma unroll
    for (int e = 0; e < kGroup; ++e) {
      if (fabsf(x[i][e] * w[i][e]) < close) continue;
      peak_x = x[i][e], peak_w = w[i][e];
      ++n_close;
    }
  }
  const uint32_t owners = __ballot_sync(kFullWarp, n_close > 0);
  if (lane == __ffs(owners) - 1) {
    const bool unclear = largest > 0.0f && (n_close > 1 || (owners & (owners - 1)) != 0);
    block().peaks[warp] = make_float3(peak_x, peak_w, unclear ? 1.0f : 0.0f);
  }
}

// A step's product: sums of this block's row tiles with quantized(norm(x)), to the partial sums; gives 1 / scale. x
// comes from other blocks, or is `plain` where that is not null; no norm where its weights are null. A warp multiplies
// the columns that it quantised.
template <TableType kType, class Shape, int kStep>
__device__ __forceinline__ float product_phase(RingPlace& place, const uint4* exchange, const float* plain,
                                               uint32_t epoch, const float* norm, float eps) {
  constexpr int kChunks = chunks_of(kStep);
  const auto& plan = the_plan<kType, Shape>();
  BlockState& state = block();
  const int tid = thread_index(), warp = tid / 32, lane = tid % 32, n_cols = plan.n_cols[kStep];
  const auto column = [&](int i) { return (tid + i * kWorkers) * kGroup; };
  float w[kChunks][kGroup], x[kChunks][kGroup];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    float4 a = make_float4(1.0f, 1.0f, 1.0f, 1.0f), b = a;
    if (norm != nullptr && column(i) < n_cols) {
      a = __ldg(reinterpret_cast<const float4*>(norm + column(i)));
      b = __ldg(reinterpret_cast<const float4*>(norm + column(i)) + 1);
    }
    w[i][0] = a.x, w[i][1] = a.y, w[i][2] = a.z, w[i][3] = a.w;
    w[i][4] = b.x, w[i][5] = b.y, w[i][6] = b.z, w[i][7] = b.w;
  }
  if (kStep != kStepQkv || plain == nullptr) {
    receive<kChunks>(exchange + plan.inputs[kStep], tid, kWorkers, n_cols / kGroup, n_cols / kGroup, epoch, x);
  } else {
#pragma unroll
    for (int e = 0; e < kGroup; ++e) x[0][e] = column(0) < n_cols ? load1(plain + column(0) + e) : 0.0f;
  }
  __syncwarp();
  if (norm != nullptr) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const float sum = warp_pair_sum(eight_squares(x[i]));
      if (lane == 0) state.sums[warp + i * kRingWarps] = sum;
    }
  }
  put_peak<kChunks>(x, w);
  __syncwarp();
  sync_workers();
  float r = 1.0f;
  if (norm != nullptr) {
    float sum = 0.0f;  // chunks that the row has not are +0
#pragma unroll
    for (int i = 0; i < kChunks * kRingWarps; ++i) sum += state.sums[i];
    r = norm_factor(sum, n_cols, eps);
  }
  const float scale = quantizing_scale(largest_normed<kChunks>(x, w, r));
  uint32_t* const codes = reinterpret_cast<uint32_t*>(block_memory() + plan.codes);
  uint32_t* const own = codes + (warp * 2 + lane / 16) * 32 + fragment_word(lane % 16 * 2);
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto normed = [&](int e) { return (x[i][4 * half + e] * r) * w[i][4 * half + e]; };
      const uint32_t word = code_word_within(make_float4(normed(0), normed(1), normed(2), normed(3)), scale);
      own[i * kSlotTiles * 32 + half * fragment_word(1)] = word;
      sum = __dp4a(int(word), 0x01010101, sum);
    }
  }
  sum = __reduce_add_sync(kFullWarp, sum);
  const int n = tiles_of_block<kType, Shape, kStep>().n * (kStep == kStepGate ? 2 : 1), n_slots = n * kChunks;
  const RingPlace mine = place.after(lane);
  if (lane < n_slots) barrier_wait(&state.barriers.full[mine.slot], mine.parity);
  __syncwarp();
  int* const partial = reinterpret_cast<int*>(block_memory() + plan.partial);
  constexpr int kTiles = kStep == kStepGate ? 4 : 2;
  multiply_tiles<kTiles, kChunks>(place, 0, min(n, kTiles), n_cols, codes, sum, partial);
  if (kStep == kStepGate && n > kTiles) {
    multiply_tiles<kTiles, kChunks>(place, kTiles, n - kTiles, n_cols, codes, sum, partial);
  }
  __syncwarp();
  if (lane < n_slots) barrier_arrive(&state.barriers.empty[mine.slot]);
  place = place.after(n_slots);
  sync_workers();
  return 1.0f / scale;
}

// y of row `row` of the block's tiles, by its kRowThreads threads.
__device__ __forceinline__ float product_of(const int* partial, int row, float inv_scale, float alpha) {
  static_assert(kRingWarps % kRowThreads == 0);
  const int* const from = partial + row * kPartialStride + thread_index() % kRowThreads * (kRingWarps / kRowThreads);
  int total = 0;
#pragma unroll
  for (int i = 0; i < kRingWarps / kRowThreads; ++i) total += from[i];
  total += __shfl_xor_sync(kFullWarp, total, 1);
  return (float(total) * inv_scale) * alpha;
}
#endif

}  // namespace bitnet::cuda
