#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_block.cuh"
#include "kernels/cuda/wgmma.cuh"

// Products of up to kBatchTokens tokens on Hopper with matrices of so many rows that nearly every multiprocessor has
// eight row tiles of its own. A block has all its activations and most of its weights in shared memory: the weights
// come before the kernel in front of this one has ended. Its two warpgroups have four of the row tiles each.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTiles = 8;  // row tiles of a block; with a gate, four of each segment
constexpr int kMaxColTiles = 64;
// So that a block of the kernel in front of this one, which norms a row, has room beside.
constexpr size_t kMostShared_bytes = 210 * 1024;

// Of n_col_tiles, so many have room for their weights at first; the rest follows into the slots that are free first.
template <int kTokens>
__host__ __device__ constexpr int n_slots_of(int n_col_tiles) {
  const int left = int(kMostShared_bytes) - 1024 - n_col_tiles * kTokens * kTileCols;
  const int fit = left / (kTiles * kTileBytes);
  return fit < n_col_tiles ? fit : n_col_tiles;
}

#if BN_HAS_WGMMA
// Keeps the compiler from moving what these registers get or give over this place: they belong to the tensor cores.
template <int kN>
__device__ inline void pin(int (&acc)[2][kN]) {
#pragma unroll
  for (int i = 0; i < 2 * kN; ++i) asm volatile("" : "+r"(acc[i / kN][i % kN])::"memory");
}
__device__ inline void pin(uint32_t (&planes)[2][4]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) asm volatile("" : "+r"(planes[i / 4][i % 4])::"memory");
}

// Two steps of 32 columns; the codes of rows g + 8 are four times as large, as in tensor_core.cuh.
__device__ inline void unpack(uint32_t first, uint32_t second, uint32_t (&planes)[2][4]) {
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const uint32_t w = s == 0 ? first : second, high = w >> 4;
    planes[s][0] = w & 0x03030303u;
    planes[s][1] = w & 0x0c0c0c0cu;
    planes[s][2] = high & 0x03030303u;
    planes[s][3] = high & 0x0c0c0c0cu;
  }
  pin(planes);
}
// Products into one accumulator wait for each other, so that there are two.
template <int kN>
__device__ inline void multiply(int (&acc)[2][kN], const uint32_t (&planes)[2][4], uint64_t descriptor) {
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < 2; ++s) wgmma_u8s8(acc[s], planes[s], descriptor + uint64_t(2 * s));
  wgmma_commit();
}
#endif

template <int kTokens>
__global__ void __launch_bounds__(kThreads) batch_wgmma_kernel(const __grid_constant__ PromptProduct call) {
#if BN_HAS_WGMMA
  constexpr int kSums = kTokens / 2;                // of a thread: four of each eight tokens
  constexpr int kCode_bytes = kTokens * kTileCols;  // of a column tile
  extern __shared__ __align__(128) uint8_t raw[];
  __shared__ __align__(8) uint64_t first_weights, rest_weights, slots_free, there[kMaxColTiles];
  __shared__ float inv_scales[kTokens];
  __shared__ int less[kTokens];
  const bool gate = is_gate(call.epilogue);
  const int tid = int(threadIdx.x), warp = __shfl_sync(kFullWarp, tid / 32, 0), lane = tid % 32, g = lane / 4,
            t = lane % 4;
  const int n_k = call.x.n_col_tiles, n_slots = n_slots_of<kTokens>(n_k), n_rest = n_k - n_slots;
  uint8_t* const codes = raw + (1024 - shared_address(raw) % 1024) % 1024;
  uint8_t* const weights = codes + n_k * kCode_bytes;  // [kTiles, n_slots]
  // Row tile i of the block. Those beyond the last repeat it and are not put out.
  const auto tile_of = [&](int i, int& segment) {
    segment = gate ? i / 4 : 0;
    int tile = gate ? int(blockIdx.x) * (kTiles / 2) + i % 4 : int(blockIdx.x) * kTiles + i;
    while (!gate && segment + 1 < call.n_segments && tile >= call.segments[segment].n_row_tiles) {
      tile -= call.segments[segment++].n_row_tiles;
    }
    return tile;
  };
  // The blocks begin at different column tiles, so that they do not all want the same memory at the same time.
  const int turn = int(blockIdx.x) % n_k;
  const auto turned = [&](int k) { return k + turn < n_k ? k + turn : k + turn - n_k; };
  int my_segment;
  const int my_tile = tile_of(lane % kTiles, my_segment);
  const Segment& fetched = call.segments[my_segment];
  const uint4* const source = fetched.tiles + size_t(min(my_tile, fetched.n_row_tiles - 1)) * n_k * 32;
  // Column tiles first to last - 1 of the block's row tiles to the first slots, by a lane for each row tile.
  const auto fetch_weights = [&](int first, int last, uint64_t* barrier) {
    uint8_t* const to = weights + lane * n_slots * kTileBytes;
    const int from = turned(first), n_straight = min(last - first, n_k - from), n_others = last - first - n_straight;
    bulk_copy(to, source + from * 32, uint32_t(n_straight * kTileBytes), barrier);
    if (n_others > 0) bulk_copy(to + n_straight * kTileBytes, source, uint32_t(n_others * kTileBytes), barrier);
  };
  if (warp == 0) {
    if (lane == 0) {
      barrier_init(&first_weights, 1);
      barrier_init(&rest_weights, 1);
      barrier_init(&slots_free, kThreads / 32);
      for (int k = 0; k < n_k; ++k) barrier_init(&there[k], 1);
      barrier_init_fence();
      barrier_expect(&first_weights, uint32_t(n_slots * kTiles * kTileBytes));
    }
    __syncwarp();
    if (lane < kTiles) fetch_weights(0, n_slots, &first_weights);
  }
  launch_dependents();
  wait_for_dependencies();
  if (warp == 0) {
    for (int k = lane; k < n_k; k += 32) {
      barrier_expect(&there[k], uint32_t(kCode_bytes));
      bulk_copy(codes + k * kCode_bytes, call.x.codes + size_t(turned(k)) * (kTokenBlock * kTileCols), kCode_bytes,
                &there[k]);
    }
  }
  if (tid < kTokens) {
    const int token = min(tid, call.x.n_tokens - 1);
    inv_scales[tid] = load1(call.x.inv_scales + token);
    less[tid] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token));
  }
  __syncthreads();
  barrier_wait(&first_weights, 0);

  int parts[2][kSums] = {};
  pin(parts);
  uint4 words;
  uint32_t low[2][4], high[2][4];
  const auto load = [&](int k) {
    barrier_wait(&there[k], 0);
    if (k >= n_slots) barrier_wait(&rest_weights, 0);
    words = reinterpret_cast<const uint4*>(weights)[(warp * n_slots + (k < n_slots ? k : k - n_slots)) * 32 + lane];
    if (n_rest > 0 && k == n_rest - 1) {
      __syncwarp();
      if (lane == 0) barrier_arrive(&slots_free);
      if (warp == 0) {
        barrier_wait(&slots_free, 0);
        if (lane == 0) barrier_expect(&rest_weights, uint32_t(n_rest * kTiles * kTileBytes));
        __syncwarp();
        if (lane < kTiles) fetch_weights(n_slots, n_k, &rest_weights);
        __syncwarp();
      }
    }
  };
  load(0);
  unpack(words.x, words.y, low);
  const uint32_t base = shared_address(codes);
#pragma unroll 1
  for (int k = 0; k < n_k; ++k) {
    const uint64_t descriptor = swizzled_descriptor(__shfl_sync(kFullWarp, base + uint32_t(k * kCode_bytes), 0));
    multiply(parts, low, descriptor);
    wgmma_wait<1>();
    if (k > 0) pin(high);
    unpack(words.z, words.w, high);
    multiply(parts, high, descriptor + 4);
    if (k + 1 < n_k) load(k + 1);
    wgmma_wait<1>();
    pin(low);
    unpack(words.x, words.y, low);
  }
  wgmma_wait<0>();
  pin(high);
  pin(parts);

  // The sums go through shared memory, so that the code for an output is short and loops: it is executed once in so
  // many products and comes from far away.
  constexpr int kStride = kTiles * kTileRows + 4;     // so that no two lanes meet in a bank
  int* const totals = reinterpret_cast<int*>(codes);  // [kTokens, kStride]
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    totals[(i / 4 * 8 + 2 * t + i % 2) * kStride + warp * kTileRows + g + i % 4 / 2 * 8] =
        (parts[0][i] + parts[1][i]) >> (i % 4 / 2 * 2);
  }
  __syncthreads();
  const bool relu2 = call.epilogue == Epilogue::kGateRelu2, adds = call.epilogue == Epilogue::kAdd;
  const int n_quads = kTiles * kTileRows / (gate ? 8 : 4);  // of four rows of an output
#pragma unroll 1
  for (int i = tid; i < call.x.n_tokens * n_quads; i += kThreads) {
    const int token = i / n_quads, quad = i % n_quads;
    int segment;
    const int row = tile_of(quad / 4, segment) * kTileRows + quad % 4 * 4;
    const Segment& s = call.segments[segment];
    const auto values = [&](int at, float alpha) {
      const int4 v = *reinterpret_cast<const int4*>(totals + token * kStride + 4 * at);
      const auto value = [&](int sum) { return (float(sum - less[token]) * inv_scales[token]) * alpha; };
      return make_float4(value(v.x), value(v.y), value(v.z), value(v.w));
    };
    float4 y = values(quad, s.alpha);
    if (gate) {
      const float4 up = values(quad + n_quads, call.segments[1].alpha);
      y = make_float4(gated(relu2, y.x, up.x), gated(relu2, y.y, up.y), gated(relu2, y.z, up.z),
                      gated(relu2, y.w, up.w));
    }
    float* const out = s.out + size_t(token) * s.n_rows + row;
    if (s.n_rows % 4 == 0) {
      if (row >= s.n_rows) continue;
      if (adds) {
        const float4 before = load4(out);
        y = make_float4(before.x + y.x, before.y + y.y, before.z + y.z, before.w + y.w);
      }
      *reinterpret_cast<float4*>(out) = y;
    } else {
      const float four[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (row + e < s.n_rows) out[e] = adds ? load1(out + e) + four[e] : four[e];
      }
    }
  }
#endif
}

int n_blocks_of(const PromptProduct& call) {
  if (is_gate(call.epilogue)) return n_row_blocks(call, kTiles / 2);
  int n_tiles = 0;
  for (int i = 0; i < call.n_segments; ++i) n_tiles += call.segments[i].n_row_tiles;
  return (n_tiles + kTiles - 1) / kTiles;
}

template <int kTokens>
bool takes(int n_col_tiles) {
  return n_col_tiles <= kMaxColTiles && 2 * n_slots_of<kTokens>(n_col_tiles) >= n_col_tiles;
}
template <int kTokens>
cudaError_t launch(const Launcher& launcher, const PromptProduct& call) {
  const size_t n_bytes = size_t(call.x.n_col_tiles) * (kTokens * kTileCols) +
                         size_t(n_slots_of<kTokens>(call.x.n_col_tiles)) * kTiles * kTileBytes;
  const size_t sums_bytes = size_t(kTokens) * (kTiles * kTileRows + 4) * sizeof(int);
  return launch_kernel(launcher, dim3(unsigned(n_blocks_of(call))), dim3(kThreads),
                       (n_bytes > sums_bytes ? n_bytes : sums_bytes) + 1024, batch_wgmma_kernel<kTokens>, call);
}

}  // namespace

bool batch_wgmma_takes(const Launcher& launcher, const PromptProduct& call) {
  return launcher.dependent && call.x.n_tokens <= kBatchTokens &&
         4 * n_blocks_of(call) >= 3 * launcher.n_multiprocessors &&
         (call.x.n_tokens <= 32 ? takes<32>(call.x.n_col_tiles) : takes<64>(call.x.n_col_tiles));
}

cudaError_t batch_wgmma(const Launcher& launcher, const PromptProduct& call) {
  return call.x.n_tokens <= 32 ? launch<32>(launcher, call) : launch<64>(launcher, call);
}

}  // namespace bitnet::cuda
