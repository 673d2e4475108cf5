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

constexpr int kGroupThreads = 128;
constexpr int kThreads = 2 * kGroupThreads;
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
  __shared__ __align__(8) uint64_t first_weights, slots_free, there[kMaxColTiles];
  const bool gate = is_gate(call.epilogue);
  const int tid = int(threadIdx.x), warp = __shfl_sync(kFullWarp, tid / 32, 0), lane = tid % 32, g = lane / 4,
            t = lane % 4, group = warp / 4;
  const int n_k = call.x.n_col_tiles, n_slots = n_slots_of<kTokens>(n_k), n_rest = n_k - n_slots;
  uint8_t* const codes = raw + (1024 - shared_address(raw) % 1024) % 1024;
  uint8_t* const weights = codes + n_k * kCode_bytes;  // [n_slots, kTiles]
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
  // By a warp: column tile k of row tile lane % kTiles.
  const auto fetch_weights = [&](int k, uint64_t* barrier) {
    bulk_copy(weights + ((k < n_slots ? k : k - n_slots) * kTiles + lane % kTiles) * kTileBytes,
              source + turned(k) * 32, kTileBytes, barrier);
  };
  if (warp == 0) {
    if (lane == 0) {
      barrier_init(&first_weights, 1);
      barrier_init(&slots_free, kThreads / 32);
      for (int k = 0; k < n_k; ++k) barrier_init(&there[k], 1);
      barrier_init_fence();
      barrier_expect(&first_weights, uint32_t(n_slots * kTiles * kTileBytes));
    }
    __syncwarp();
    for (int k = lane / kTiles; k < n_slots; k += 32 / kTiles) fetch_weights(k, &first_weights);
  }
  launch_dependents();
  wait_for_dependencies();
  if (warp == 0) {
    for (int k = lane; k < n_k; k += 32) {
      barrier_expect(&there[k], uint32_t(kCode_bytes + (k < n_slots ? 0 : kTiles * kTileBytes)));
      bulk_copy(codes + k * kCode_bytes, call.x.codes + size_t(turned(k)) * (kTokenBlock * kTileCols), kCode_bytes,
                &there[k]);
    }
  }
  float inv[kSums / 2];  // of tokens 8u + 2t + e
  int less[kSums / 2];
#pragma unroll
  for (int i = 0; i < kSums / 2; ++i) {
    const int token = min(i / 2 * 8 + 2 * t + i % 2, call.x.n_tokens - 1);
    inv[i] = load1(call.x.inv_scales + token);
    less[i] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token));
  }
  __syncthreads();
  barrier_wait(&first_weights, 0);

  int parts[2][kSums] = {};
  pin(parts);
  uint4 words;
  uint32_t low[2][4], high[2][4];
  const auto load = [&](int k) {
    barrier_wait(&there[k], 0);
    words = reinterpret_cast<const uint4*>(weights)[((k < n_slots ? k : k - n_slots) * kTiles + warp) * 32 + lane];
    if (n_rest > 0 && k == n_rest - 1) {
      __syncwarp();
      if (lane == 0) barrier_arrive(&slots_free);
      if (warp == 0) {
        barrier_wait(&slots_free, 0);
        for (int i = n_slots + lane / kTiles; i < n_k; i += 32 / kTiles) fetch_weights(i, &there[i]);
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
  int acc[kSums];
#pragma unroll
  for (int i = 0; i < kSums; ++i) acc[i] = (parts[0][i] + parts[1][i]) >> (i % 4 / 2 * 2);

  const auto value = [&](int sum, int i, float alpha) {
    const int at = i / 4 * 2 + i % 2;
    return (float(sum - less[at]) * inv[at]) * alpha;
  };
  const auto each = [&](const Segment& s, int tile, int first, int n, const auto& visit) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) {
      if (j >= n) break;
      const int i = first + j, token = i / 4 * 8 + 2 * t + i % 2, row = tile * kTileRows + g + i % 4 / 2 * 8;
      if (token < call.x.n_tokens && row < s.n_rows) visit(j, i, s.out[size_t(token) * s.n_rows + row]);
    }
  };
  int segment;
  const int tile = tile_of(warp, segment);
  if (!gate) {
    const Segment& s = call.segments[segment];
    float before[kSums];
    if (call.epilogue == Epilogue::kAdd) {
      each(s, tile, 0, kSums, [&](int j, int, const float& out) { before[j] = load1(&out); });
    }
    each(s, tile, 0, kSums, [&](int j, int i, float& out) {
      const float y = value(acc[j], i, s.alpha);
      out = call.epilogue == Epilogue::kAdd ? before[j] + y : y;
    });
    return;
  }
  // The warpgroups give each other what the other one puts out: of the first half of the tokens, or of the second.
  constexpr int kHalf = kSums / 2;
  __syncthreads();
  int4* const room = reinterpret_cast<int4*>(codes) + tid % kGroupThreads;
#pragma unroll
  for (int j = 0; j < kHalf / 4; ++j) {
    const int4 first = make_int4(acc[4 * j], acc[4 * j + 1], acc[4 * j + 2], acc[4 * j + 3]);
    const int* const rest = acc + kHalf + 4 * j;
    const int4 second = make_int4(rest[0], rest[1], rest[2], rest[3]);
    room[(group * (kHalf / 4) + j) * kGroupThreads] = group == 0 ? second : first;
  }
  __syncthreads();
  int others[kHalf];
#pragma unroll
  for (int j = 0; j < kHalf / 4; ++j) {
    const int4 v = room[((1 - group) * (kHalf / 4) + j) * kGroupThreads];
    others[4 * j] = v.x, others[4 * j + 1] = v.y, others[4 * j + 2] = v.z, others[4 * j + 3] = v.w;
  }
  const bool relu2 = call.epilogue == Epilogue::kGateRelu2;
  const int gate_tile = int(blockIdx.x) * (kTiles / 2) + warp % 4;
  const float alpha = call.segments[0].alpha, up_alpha = call.segments[1].alpha;
  if (group == 0) {
    each(call.segments[0], gate_tile, 0, kHalf,
         [&](int j, int i, float& out) { out = gated(relu2, value(acc[j], i, alpha), value(others[j], i, up_alpha)); });
  } else {
    each(call.segments[0], gate_tile, kHalf, kHalf, [&](int j, int i, float& out) {
      out = gated(relu2, value(others[j], i, alpha), value(acc[kHalf + j % kHalf], i, up_alpha));
    });
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
  const size_t exchanged_bytes = size_t(kTokens / 2) * kGroupThreads * sizeof(int);
  return launch_kernel(launcher, dim3(unsigned(n_blocks_of(call))), dim3(kThreads),
                       (n_bytes > exchanged_bytes ? n_bytes : exchanged_bytes) + 1024, batch_wgmma_kernel<kTokens>,
                       call);
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
