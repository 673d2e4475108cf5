#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_tiles.cuh"
#include "kernels/cuda/tensor_core.cuh"

// Products of few tokens together (2 to kBatchTokens), where reading weights costs more than multiplying. As for one
// token, a block fetches the codes of a few row tiles to shared memory before it waits for the kernel in front of it,
// and its warps share the columns. The activations lie as the instructions take them and go to registers directly.
namespace bitnet::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kHeldColumns = 3;  // column tiles of a warp whose activations it can keep
constexpr size_t kMaxShared_bytes = 100 * 1024;

// A column tile of 8 kColumns tokens, as the instructions take it. Of tokens that are not there anything may lie:
// nobody reads their sums.
template <int kColumns>
struct Activations {
  uint4 x[kColumns][2];
  __device__ void load(const TiledCodes& codes, int token, int k, int t) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int8_t* const from = codes.codes + (size_t(token + c * 8) * codes.n_col_tiles + k) * kTileCols + t * 32;
      x[c][0] = load_words(from);
      x[c][1] = load_words(from + 16);
    }
  }
  __device__ void multiply(int (&acc)[kColumns][4], const uint4& w) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      mma_codes(acc[c], w.x, x[c][0].x, x[c][0].y);
      mma_codes(acc[c], w.y, x[c][0].z, x[c][0].w);
      mma_codes(acc[c], w.z, x[c][1].x, x[c][1].y);
      mma_codes(acc[c], w.w, x[c][1].z, x[c][1].w);
    }
  }
};
// A warp's sums of a row tile to [8 kColumns, stride], where no two lanes meet in a bank; adding them there with atomic
// operations takes longer.
template <int kColumns>
__device__ inline void put_partial(const int (&acc)[kColumns][4], int* to, int stride, int g, int t) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int e = 0; e < 4; ++e) to[(c * 8 + 2 * t + e % 2) * stride + g + e / 2 * 8] = acc[c][e] >> (e / 2 * 2);
  }
}
__device__ inline int add_partials(const int* from, int per_warp) {
  int total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) total += from[warp * per_warp];
  return total;
}

// kTiles row tiles (with a gate in pairs of both segments) and, in y, 8 kColumns tokens.
template <int kTiles, int kColumns>
__global__ void __launch_bounds__(kThreads, kTiles* kColumns < 16 && kColumns < 8 ? 2 : 1)
    batch_product_kernel(const __grid_constant__ PromptProduct call, int n_tiles) {
  constexpr int kRows = kTiles * 16, kStride = kRows + 4, kTokens = kColumns * 8,
                kOutputs = (kRows * kTokens + kThreads - 1) / kThreads;
  constexpr int kAhead = kColumns == 1 ? 4 : kColumns == 2 ? 3 : 2;  // column tiles that a warp has on their way
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ float inv_scales[kTokens];
  __shared__ int sums[kTokens];
  __shared__ TileOut tile_outs[kTiles];
  const bool gate = is_gate(call.epilogue), adds = call.epilogue == Epilogue::kAdd;
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_col_tiles = call.x.n_col_tiles, first = int(blockIdx.x) * kTiles, n_mine = min(kTiles, n_tiles - first);
  uint4* const tiles = reinterpret_cast<uint4*>(memory);
  int* const partial = reinterpret_cast<int*>(memory + size_t(kTiles) * n_col_tiles * kTileBytes);

#if __CUDA_ARCH__ >= 900
  __shared__ __align__(8) uint64_t arrived;
  if (tid == 0) {
    barrier_init(&arrived, 1);
    barrier_init_fence();
    fetch_row_tiles(call.segments, gate, n_col_tiles, first, n_mine, memory, &arrived);
  }
#else
  copy_row_tiles(call.segments, gate, n_col_tiles, first, n_mine, tiles, tid, kThreads);
  async_commit();
#endif
  if (tid < kTiles) {
    tile_outs[tid] = tile_out(call.segments, gate, first + min(tid, n_mine - 1));
    if (tid >= n_mine) tile_outs[tid].n_rows = 0;
  }
  __syncthreads();
  launch_dependents();
  wait_for_dependencies();

  const int token0 = int(blockIdx.y) * kTokens;
  Activations<kColumns> x[kAhead];
  const auto load = [&](Activations<kColumns>& to, int k) {
    if (k < n_col_tiles) to.load(call.x, token0 + g, k, t);
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load(x[i], warp + i * kWarps);
  // An output of this thread: its row of the block, and its token.
  const auto each_output = [&](const auto& visit) {
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      const int at = tid + i * kThreads, row = at % kRows, column = at / kRows;
      if (column >= kTokens || token0 + column >= call.x.n_tokens || (gate && row / 16 % 2 == 1)) continue;
      const TileOut& tile = tile_outs[row / 16];
      if (tile.row0 + row % 16 >= tile.n_rows) continue;
      visit(i, row, column, tile, tile.out[size_t(token0 + column) * tile.n_rows + tile.row0 + row % 16]);
    }
  };
  float before[kOutputs];
  if (adds) each_output([&](int i, int, int, const TileOut&, const float& out) { before[i] = load1(&out); });
  if (tid < kTokens && token0 + tid < call.x.n_tokens) {
    inv_scales[tid] = load1(call.x.inv_scales + token0 + tid);
    sums[tid] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token0 + tid));
  }
#if __CUDA_ARCH__ >= 900
  barrier_wait(&arrived, 0);
#else
  async_wait<0>();
  __syncthreads();
#endif
  int acc[kTiles][kColumns][4] = {};
  for (int k0 = warp; k0 < n_col_tiles; k0 += kAhead * kWarps) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int k = k0 + i * kWarps;
      if (k >= n_col_tiles) break;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {  // tiles that the last block does not have give sums that nobody reads
        x[i].multiply(acc[j], tiles[(j * n_col_tiles + k) * 32 + lane]);
      }
      load(x[i], k + kAhead * kWarps);
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) put_partial(acc[j], partial + warp * kTokens * kStride + j * 16, kStride, g, t);
  __syncthreads();
  each_output([&](int i, int row, int column, const TileOut& tile, float& out) {
    const auto value = [&](int at, float alpha) {
      const int total = add_partials(partial + column * kStride + at, kTokens * kStride);
      return (float(total - sums[column]) * inv_scales[column]) * alpha;
    };
    const float y = value(row, tile.alpha);
    if (gate) {
      out = gated(call.epilogue == Epilogue::kGateRelu2, y, value(row + 16, call.segments[1].alpha));
    } else {
      out = adds ? before[i] + y : y;
    }
  });
}

// The same where there are many more row tiles than blocks: a block takes pairs of tiles in turn, each fetched while
// the one before it is multiplied, and keeps its activations in registers.
template <int kColumns>
__global__ void __launch_bounds__(kThreads, 2)
    batch_rounds_kernel(const __grid_constant__ PromptProduct call, int n_tiles) {
#if __CUDA_ARCH__ >= 900
  constexpr int kRows = 32, kStride = kRows + 4, kTokens = kColumns * 8;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ int partial[2][kWarps][kTokens * kStride];
  __shared__ float inv_scales[kTokens];
  __shared__ int sums[kTokens];
  __shared__ __align__(8) uint64_t arrived[2];
  const bool gate = is_gate(call.epilogue), adds = call.epilogue == Epilogue::kAdd;
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_col_tiles = call.x.n_col_tiles, n_pairs = (n_tiles + 1) / 2, token0 = int(blockIdx.y) * kTokens;
  const int n_tokens = min(kTokens, call.x.n_tokens - token0);
  const auto fetch = [&](int pair, int stage) {
    if (pair >= n_pairs) return;
    fetch_row_tiles(call.segments, gate, n_col_tiles, 2 * pair, min(2, n_tiles - 2 * pair),
                    memory + stage * 2 * n_col_tiles * kTileBytes, &arrived[stage]);
  };
  if (tid == 0) {
    for (uint64_t& barrier : arrived) barrier_init(&barrier, 1);
    barrier_init_fence();
    for (int i = 0; i < 2; ++i) fetch(int(blockIdx.x) + i * int(gridDim.x), i);
  }
  launch_dependents();
  wait_for_dependencies();
  Activations<kColumns> x[kHeldColumns];
#pragma unroll
  for (int i = 0; i < kHeldColumns; ++i) x[i].load(call.x, token0 + g, min(warp + i * kWarps, n_col_tiles - 1), t);
  if (tid < n_tokens) {
    inv_scales[tid] = load1(call.x.inv_scales + token0 + tid);
    sums[tid] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token0 + tid));
  }
  __syncthreads();
  int round = 0;
  for (int pair = int(blockIdx.x); pair < n_pairs; pair += int(gridDim.x), ++round) {
    const int stage = round % 2;
    const uint4* const tiles = reinterpret_cast<const uint4*>(memory + stage * 2 * n_col_tiles * kTileBytes);
    int acc[2][kColumns][4] = {};
    barrier_wait(&arrived[stage], uint32_t(round / 2 & 1));
#pragma unroll
    for (int i = 0; i < kHeldColumns; ++i) {
      const int k = warp + i * kWarps;
      if (k >= n_col_tiles) break;
#pragma unroll
      for (int j = 0; j < 2; ++j) x[i].multiply(acc[j], tiles[(j * n_col_tiles + k) * 32 + lane]);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) put_partial(acc[j], partial[stage][warp] + j * 16, kStride, g, t);
    __syncthreads();  // the sums are there, and this stage is free
    if (tid == 0) fetch(pair + 2 * int(gridDim.x), stage);
    for (int i = tid; i < kRows * kTokens; i += kThreads) {
      const int row = i % kRows, column = i / kRows, tile = 2 * pair + row / 16;
      if (gate && row >= 16) continue;  // its sums go with the other half's
      if (column >= n_tokens || tile >= n_tiles) continue;
      const TileOut to = tile_out(call.segments, gate, tile);
      if (to.row0 + row % 16 >= to.n_rows) continue;
      const auto value = [&](int at, float alpha) {
        const int total = add_partials(partial[stage][0] + column * kStride + at, kTokens * kStride);
        return (float(total - sums[column]) * inv_scales[column]) * alpha;
      };
      float& out = to.out[size_t(token0 + column) * to.n_rows + to.row0 + row % 16];
      const float y = value(row, to.alpha);
      if (gate) {
        out = gated(call.epilogue == Epilogue::kGateRelu2, y, value(row + 16, call.segments[1].alpha));
      } else {
        out = adds ? load1(&out) + y : y;
      }
    }
    // The next round has the other sums; its barrier keeps the one after it from these.
  }
#endif
}

template <int kTiles>
cudaError_t launch(const Launcher& launcher, const PromptProduct& call, int n_tiles) {
  const auto start = [&](auto kernel, int columns) {
    const dim3 grid(unsigned((n_tiles + kTiles - 1) / kTiles),
                    unsigned((call.x.n_tokens + 8 * columns - 1) / (8 * columns)));
    const size_t n_bytes = size_t(kTiles) * call.x.n_col_tiles * kTileBytes +
                           size_t(kWarps) * 8 * size_t(columns) * (kTiles * 16 + 4) * sizeof(int);
    return launch_kernel(launcher, grid, dim3(kThreads), n_bytes, kernel, call, n_tiles);
  };
  // Two blocks on a multiprocessor, and kernels beside each other, are worth more than a second reading of the weights.
  if (call.x.n_tokens <= 8) return start(batch_product_kernel<kTiles, 1>, 1);
  if (call.x.n_tokens <= 32) return start(batch_product_kernel<kTiles, 2>, 2);
  return start(batch_product_kernel<kTiles, 4>, 4);
}

template <int kColumns>
cudaError_t launch_rounds(const Launcher& launcher, const PromptProduct& call, int n_tiles) {
  const int parts = (call.x.n_tokens + 8 * kColumns - 1) / (8 * kColumns), n_pairs = (n_tiles + 1) / 2;
  const int n_blocks = 2 * launcher.n_multiprocessors / parts;
  return launch_kernel(launcher, dim3(unsigned(n_blocks < n_pairs ? n_blocks : n_pairs), unsigned(parts)),
                       dim3(kThreads), size_t(4) * call.x.n_col_tiles * kTileBytes, batch_rounds_kernel<kColumns>, call,
                       n_tiles);
}

}  // namespace

bool batch_product_takes(const TernaryWeights& w) {
  return w.groups == nullptr && w.n_rows < (int64_t{1} << 30) && size_t(2 * w.n_col_tiles) * kTileBytes <= 200 * 1024;
}

cudaError_t batch_product(const Launcher& launcher, const PromptProduct& call) {
  int n_tiles = 0;
  for (int i = 0; i < call.n_segments; ++i) n_tiles += call.segments[i].n_row_tiles;
  if (launcher.dependent && is_gate(call.epilogue) && call.x.n_col_tiles <= kHeldColumns * kWarps &&
      n_tiles > 4 * launcher.n_multiprocessors) {
    return call.x.n_tokens <= 8 ? launch_rounds<1>(launcher, call, n_tiles) : launch_rounds<2>(launcher, call, n_tiles);
  }
  // As few blocks as fill the device once: each reads all activations.
  const bool several = is_gate(call.epilogue) || call.x.n_tokens > 16;
  const auto fits = [&](int k) { return size_t(k) * call.x.n_col_tiles * kTileBytes <= kMaxShared_bytes; };
  const int wanted = (2 * n_tiles + 3 * launcher.n_multiprocessors - 1) / (3 * launcher.n_multiprocessors);
  if (wanted > 2 && fits(4)) return launch<4>(launcher, call, n_tiles);
  if (is_gate(call.epilogue) || ((wanted > 1 || several) && fits(2))) return launch<2>(launcher, call, n_tiles);
  return launch<1>(launcher, call, n_tiles);
}

}  // namespace bitnet::cuda
