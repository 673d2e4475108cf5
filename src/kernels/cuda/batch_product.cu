#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_block.cuh"
#include "kernels/cuda/tensor_core.cuh"

// Products of few tokens together (2 to kBatchTokens), where reading weights costs more than multiplying. As for one
// token, a block fetches the codes of a few row tiles to shared memory before it waits for the kernel in front of it,
// and its warps share the columns. The activations lie as the instructions take them and go to registers directly.
namespace bitnet::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr size_t kMaxShared_bytes = 100 * 1024;

struct TileOut {
  float* out;
  int n_rows, row0;
  float alpha;
};

// kTiles row tiles (with a gate in pairs of both segments) and 8 kColumns tokens at a time, of which the blocks in y
// have their share.
template <int kTiles, int kColumns>
__global__ void __launch_bounds__(kThreads, kTiles* kColumns < 16 ? 2 : 1)
    batch_product_kernel(const __grid_constant__ PromptProduct call, int n_tiles) {
  constexpr int kRows = kTiles * 16, kStride = kRows + 4, kTokens = kColumns * 8,
                kOutputs = (kRows * kTokens + kThreads - 1) / kThreads;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ int totals[kTokens * kStride];  // so that no two lanes meet in a bank
  __shared__ float inv_scales[kTokens];
  __shared__ int sums[kTokens];
  __shared__ TileOut tile_outs[kTiles];
  const bool gate = is_gate(call.epilogue), adds = call.epilogue == Epilogue::kAdd;
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_col_tiles = call.x.n_col_tiles, first = int(blockIdx.x) * kTiles, n_mine = min(kTiles, n_tiles - first);
  uint4* const tiles = reinterpret_cast<uint4*>(memory);

  // Tile i of all: with a gate, tiles of both segments in turn; else one segment after the other.
  const auto segment_of = [&](int i, int& tile) {
    if (gate) {
      tile = i / 2;
      return i % 2;
    }
    int segment = 0;
    while (i >= call.segments[segment].n_row_tiles) i -= call.segments[segment++].n_row_tiles;
    tile = i;
    return segment;
  };
  const auto source_of = [&](int i) {
    int tile;
    const int segment = segment_of(first + i, tile);
    return call.segments[segment].tiles + size_t(tile) * n_col_tiles * 32;
  };
  const uint32_t tile_bytes = uint32_t(n_col_tiles) * kTileBytes;
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(8) uint64_t arrived;
  if (tid == 0) {
    barrier_init(&arrived, 1);
    barrier_init_fence();
    barrier_expect(&arrived, uint32_t(n_mine) * tile_bytes);
    for (int i = 0; i < n_mine; ++i) bulk_copy(memory + i * tile_bytes, source_of(i), tile_bytes, &arrived);
  }
#else
  for (int i = 0; i < n_mine; ++i) {
    const uint4* const from = source_of(i);
    for (int j = tid; j < n_col_tiles * 32; j += kThreads) async_copy16(tiles + i * n_col_tiles * 32 + j, from + j);
  }
  async_commit();
#endif
  if (tid < kTiles) {
    int tile;
    const Segment& s = call.segments[segment_of(first + min(tid, n_mine - 1), tile)];
    tile_outs[tid] = {s.out, tid < n_mine ? s.n_rows : 0, tile * 16, s.alpha};
  }
  for (int i = tid; i < kTokens * kStride; i += kThreads) totals[i] = 0;
  launch_dependents();
  wait_for_dependencies();
  __syncthreads();

  const auto load_columns = [&](uint4(&b)[kColumns][2], int token0, int k) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int8_t* const from = call.x.codes + (size_t(token0 + c * 8 + g) * n_col_tiles + k) * kTileCols + t * 32;
      b[c][0] = load_words(from);
      b[c][1] = load_words(from + 16);
    }
  };
  // What this thread puts out: one row of the block, of several tokens.
  static_assert(kThreads % kRows == 0);
  const int row = tid % kRows, row_of_segment = tile_outs[row / 16].row0 + row % 16;
  const int n_rows = tile_outs[row / 16].n_rows;
  const float alpha = tile_outs[row / 16].alpha;
  float* const out_row = tile_outs[row / 16].out + row_of_segment;
  const bool puts_out = row_of_segment < n_rows && !(gate && row / 16 % 2 == 1);
  const int first_token = int(blockIdx.y) * kTokens, token_step = int(gridDim.y) * kTokens;
  for (int token0 = first_token; token0 < call.x.n_tokens; token0 += token_step) {
    const int n_columns = puts_out ? min(kTokens, call.x.n_tokens - token0) : 0;
    const auto each_output = [&](const auto& visit) {
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) {
        const int column = tid / kRows + i * (kThreads / kRows);
        if (column < n_columns) visit(i, column, out_row[size_t(token0 + column) * n_rows]);
      }
    };
    float before[kOutputs];
    if (adds) each_output([&](int i, int, const float& out) { before[i] = load1(&out); });
    if (tid < kTokens && token0 + tid < call.x.n_tokens) {
      inv_scales[tid] = load1(call.x.inv_scales + token0 + tid);
      sums[tid] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token0 + tid));
    }
    int acc[kTiles][kColumns][4] = {};
    uint4 next[kColumns][2];
    if (warp < n_col_tiles) load_columns(next, token0, warp);
    if (token0 == first_token) {
#if __CUDA_ARCH__ >= 900
      barrier_wait(&arrived, 0);
#else
      async_wait<0>();
      __syncthreads();
#endif
    }
    for (int k = warp; k < n_col_tiles; k += kWarps) {
      uint32_t b[kColumns][8];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          b[c][4 * half] = next[c][half].x;
          b[c][4 * half + 1] = next[c][half].y;
          b[c][4 * half + 2] = next[c][half].z;
          b[c][4 * half + 3] = next[c][half].w;
        }
      }
      if (k + kWarps < n_col_tiles) load_columns(next, token0, k + kWarps);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {  // tiles that the last block does not have give sums that nobody reads
        const uint4 w = tiles[(i * n_col_tiles + k) * 32 + lane];
        const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int s = 0; s < 4; ++s) {
#pragma unroll
          for (int c = 0; c < kColumns; ++c) mma_codes(acc[i][c], words[s], b[c][2 * s], b[c][2 * s + 1]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          atomicAdd(&totals[(c * 8 + 2 * t + e % 2) * kStride + i * 16 + g + e / 2 * 8], acc[i][c][e] >> (e / 2 * 2));
        }
      }
    }
    __syncthreads();
    each_output([&](int i, int column, float& out) {
      const auto value = [&](int at, float factor) {
        return (float(totals[column * kStride + at] - sums[column]) * inv_scales[column]) * factor;
      };
      const float y = value(row, alpha);
      if (gate) {
        out = gated(call.epilogue == Epilogue::kGateRelu2, y, value(row + 16, call.segments[1].alpha));
      } else {
        out = adds ? before[i] + y : y;
      }
    });
    if (token0 + token_step >= call.x.n_tokens) break;
    __syncthreads();
    for (int i = tid; i < kTokens * kStride; i += kThreads) totals[i] = 0;
    __syncthreads();
  }
}

template <int kTiles>
cudaError_t launch(const Launcher& launcher, const PromptProduct& call, int n_tiles) {
  // With more than 16 tokens two blocks in y: two blocks on a multiprocessor, and the next kernel's beside them, are
  // worth more than reading the weights once.
  const auto start = [&](auto kernel, int columns) {
    const int parts = (call.x.n_tokens + 8 * columns - 1) / (8 * columns);
    return launch_kernel(launcher, dim3(unsigned((n_tiles + kTiles - 1) / kTiles), unsigned(parts)), dim3(kThreads),
                         size_t(kTiles) * call.x.n_col_tiles * kTileBytes, kernel, call, n_tiles);
  };
  if (call.x.n_tokens <= 8) return start(batch_product_kernel<kTiles, 1>, 1);
  if (call.x.n_tokens <= 32) return start(batch_product_kernel<kTiles, 2>, 2);
  return start(batch_product_kernel<kTiles, 4>, 4);
}

}  // namespace

bool batch_product_takes(const TernaryWeights& w) {
  return w.groups == nullptr && w.n_rows < (int64_t{1} << 30) && size_t(2 * w.n_col_tiles) * kTileBytes <= 200 * 1024;
}

cudaError_t batch_product(const Launcher& launcher, const PromptProduct& call) {
  int n_tiles = 0;
  for (int i = 0; i < call.n_segments; ++i) n_tiles += call.segments[i].n_row_tiles;
  // As few blocks as fill the device once: each reads all activations.
  const bool several = is_gate(call.epilogue) || call.x.n_tokens > 16;
  const auto fits = [&](int k) { return size_t(k) * call.x.n_col_tiles * kTileBytes <= kMaxShared_bytes; };
  const int wanted = (2 * n_tiles + 3 * launcher.n_multiprocessors - 1) / (3 * launcher.n_multiprocessors);
  if (wanted > 2 && fits(4)) return launch<4>(launcher, call, n_tiles);
  if (is_gate(call.epilogue) || ((wanted > 1 || several) && fits(2))) return launch<2>(launcher, call, n_tiles);
  return launch<1>(launcher, call, n_tiles);
}

}  // namespace bitnet::cuda
