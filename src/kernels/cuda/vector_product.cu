#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/tensor_core.cuh"

// One token's products with ternary weights. A block has a few row tiles, whose codes it fetches to shared memory
// before it waits for the kernel in front of it; its warps share the columns.
namespace bitnet::cuda {
namespace {

constexpr int kWarps = 10;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxFours = 18;
constexpr size_t kMostShared_bytes = 200 * 1024;
constexpr size_t kMaxShared_bytes = 112 * 1024;  // two blocks on a multiprocessor

// Where a block's arrays lie in its shared memory.
struct Places {
  size_t norm, codes, total;
};
__host__ __device__ inline Places places(int n_cols, int n_col_tiles, int n_tiles) {
  Places p;
  p.norm = size_t(n_tiles) * n_col_tiles * kTileBytes;
  p.codes = p.norm + (size_t(n_cols) * 4 + 15) / 16 * 16;
  p.total = p.codes + size_t(n_col_tiles) * kTileCols;
  return p;
}

// A thread has kFours times four columns of the input.
template <int kTiles, int kFours>
__global__ void __launch_bounds__(kThreads, kFours <= 6 ? 2 : 1)
    vector_product_kernel(const __grid_constant__ VectorProduct call, int n_tiles) {
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ int partial[kTiles * 16 * (kWarps + 1)];
  __shared__ __align__(16) float halves[kFours * kWarps];
  __shared__ float maxima[kWarps];
  __shared__ int sums[kWarps];
  const bool gate = call.epilogue == Epilogue::kGateRelu2 || call.epilogue == Epilogue::kGateSilu;
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const Places place = places(call.n_cols, call.n_col_tiles, kTiles);
  uint4* const tiles = reinterpret_cast<uint4*>(memory);
  uint32_t* const codes = reinterpret_cast<uint32_t*>(memory + place.codes);
  float* const norm = reinterpret_cast<float*>(memory + place.norm);
  const int first = int(blockIdx.x) * kTiles, n_mine = min(kTiles, n_tiles - first);

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
    return call.segments[segment].tiles + size_t(tile) * call.n_col_tiles * 32;
  };
  const uint32_t tile_bytes = uint32_t(call.n_col_tiles) * kTileBytes;
  const uint32_t norm_bytes = call.norm == nullptr ? 0 : uint32_t(call.n_cols) * 4;
#if __CUDA_ARCH__ >= 900
  // The norm's weights come first: they are wanted long before the codes.
  __shared__ __align__(8) uint64_t norm_arrived, arrived;
  if (tid == 0) {
    barrier_init(&norm_arrived, 1);
    barrier_init(&arrived, 1);
    barrier_init_fence();
    barrier_expect(&norm_arrived, norm_bytes);
    if (norm_bytes > 0) bulk_copy(norm, call.norm, norm_bytes, &norm_arrived);
    barrier_expect(&arrived, uint32_t(n_mine) * tile_bytes);
    for (int i = 0; i < n_mine; ++i) bulk_copy(memory + i * tile_bytes, source_of(i), tile_bytes, &arrived);
  }
  __syncthreads();
#else
  for (int i = tid; i < int(norm_bytes / 16); i += kThreads) async_copy16(norm + 4 * i, call.norm + 4 * i);
  async_commit();
  for (int i = 0; i < n_mine; ++i) {
    const uint4* const from = source_of(i);
    for (int j = tid; j < call.n_col_tiles * 32; j += kThreads) {
      async_copy16(tiles + i * call.n_col_tiles * 32 + j, from + j);
    }
  }
  async_commit();
#endif
  // What this thread puts out, if anything.
  const int n_outputs = gate ? n_mine * 8 : n_mine * 16;
  int out_tile = 0;
  const int out_segment = segment_of(first + min(gate ? tid / 16 * 2 : tid / 16, n_mine - 1), out_tile);
  const Segment& out_of = call.segments[out_segment];
  const int out_row = out_tile * 16 + tid % 16;
  const bool writes = tid < n_outputs && out_row < out_of.n_rows;
  launch_dependents();
  wait_for_dependencies();

  const int n_fours = call.n_cols / 4;
  float4 v[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (tid + i * kThreads < n_fours) v[i] = load4(call.x + 4 * (tid + i * kThreads));
  }
  float residual = 0.0f;
  if (writes && call.epilogue == Epilogue::kAdd) residual = load1(out_of.out + out_row);
  if (call.norm != nullptr) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const float sum = warp_pair_sum(four_squares(v[i]));
      if (lane == 0) halves[i * kWarps + warp] = sum;
    }
#if __CUDA_ARCH__ >= 900
    barrier_wait(&norm_arrived, 0);
#else
    async_wait<1>();
#endif
    __syncthreads();
    const float r = row_factor(halves, call.n_cols, call.eps);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int at = tid + i * kThreads;
      if (at < n_fours) v[i] = scaled(v[i], r, reinterpret_cast<const float4*>(norm)[at]);
    }
  }
  float absmax = 0.0f;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
  }
  // Not negative and no NaN, so ordered like their bits.
  absmax = __uint_as_float(__reduce_max_sync(kFullWarp, __float_as_uint(absmax)));
  if (lane == 0) maxima[warp] = absmax;
  __syncthreads();
  absmax = maxima[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) absmax = fmaxf(absmax, maxima[i]);
  const float scale = quantizing_scale(absmax);
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int at = tid + i * kThreads;
    if (at >= call.n_col_tiles * 32) break;
    const uint32_t word = code_word(v[i], scale);
    codes[at / 32 * 32 + fragment_word(at % 32)] = word;
    sum = __dp4a(int(word), 0x01010101, sum);
  }
  sum = __reduce_add_sync(kFullWarp, sum);
  if (lane == 0) sums[warp] = sum;
#if __CUDA_ARCH__ >= 900
  __syncwarp();  // a warp multiplies the columns that it has quantised
  barrier_wait(&arrived, 0);
#else
  async_wait<0>();
  __syncthreads();
#endif
  int acc[kTiles][4] = {};
  for (int k = warp; k < call.n_col_tiles; k += kWarps) {
    const uint4 low = *reinterpret_cast<const uint4*>(codes + k * 32 + t * 8);
    const uint4 high = *reinterpret_cast<const uint4*>(codes + k * 32 + t * 8 + 4);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {  // tiles that the last block does not have give sums that nobody reads
      const uint4 w = tiles[(i * call.n_col_tiles + k) * 32 + lane];
      dp4a_codes(acc[i], w.x, low.x, low.y);
      dp4a_codes(acc[i], w.y, low.z, low.w);
      dp4a_codes(acc[i], w.z, high.x, high.y);
      dp4a_codes(acc[i], w.w, high.z, high.w);
    }
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    int upper = acc[i][0] + (acc[i][2] >> 4), lower = (acc[i][1] >> 2) + (acc[i][3] >> 6);
    upper += __shfl_xor_sync(kFullWarp, upper, 1);
    lower += __shfl_xor_sync(kFullWarp, lower, 1);
    upper += __shfl_xor_sync(kFullWarp, upper, 2);
    lower += __shfl_xor_sync(kFullWarp, lower, 2);
    if (t == 0) {
      partial[(i * 16 + g) * (kWarps + 1) + warp] = upper;
      partial[(i * 16 + 8 + g) * (kWarps + 1) + warp] = lower;
    }
  }
  __syncthreads();
  const float inv_scale = 1.0f / scale;

  sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += sums[i];
  const auto value = [&](int i, float alpha) {
    int total = 0;
#pragma unroll
    for (int j = 0; j < kWarps; ++j) total += partial[i * (kWarps + 1) + j];
    return (float(total - sum) * inv_scale) * alpha;
  };
  if (!writes) return;
  float* const out = out_of.out + out_row;
  if (gate) {
    const int at = tid / 16 * 32 + tid % 16;
    *out =
        gated(call.epilogue == Epilogue::kGateRelu2, value(at, out_of.alpha), value(at + 16, call.segments[1].alpha));
  } else {
    const float y = value(tid, out_of.alpha);
    *out = call.epilogue == Epilogue::kAdd ? residual + y : y;
  }
}

template <int kTiles, int kFours>
cudaError_t launch(const Launcher& launcher, const VectorProduct& call, int n_tiles) {
  return launch_kernel(launcher, dim3(unsigned((n_tiles + kTiles - 1) / kTiles)), dim3(kThreads),
                       places(call.n_cols, call.n_col_tiles, kTiles).total, vector_product_kernel<kTiles, kFours>, call,
                       n_tiles);
}

template <int kTiles>
cudaError_t launch(const Launcher& launcher, const VectorProduct& call, int n_tiles) {
  const int fours = (call.n_col_tiles * 32 + kThreads - 1) / kThreads;
  if (fours <= 2) return launch<kTiles, 2>(launcher, call, n_tiles);
  if (fours <= 6) return launch<kTiles, 6>(launcher, call, n_tiles);
  return launch<kTiles, kMaxFours>(launcher, call, n_tiles);
}

}  // namespace

bool vector_product_takes(const TernaryWeights& w) {
  return w.groups == nullptr && w.n_cols % 16 == 0 && w.n_col_tiles * 32 <= kThreads * kMaxFours &&
         w.n_rows < (int64_t{1} << 30) && places(int(w.n_cols), int(w.n_col_tiles), 2).total <= kMostShared_bytes;
}

cudaError_t vector_product(const Launcher& launcher, const VectorProduct& call) {
  const bool gate = call.epilogue == Epilogue::kGateRelu2 || call.epilogue == Epilogue::kGateSilu;
  int n_tiles = 0;
  for (int i = 0; i < call.n_segments; ++i) n_tiles += call.segments[i].n_row_tiles;
  // As few blocks as fill the device once, as far as a block's shared memory goes. Two small blocks beside each other
  // are better than half of the multiprocessors without one.
  const int wanted = (2 * n_tiles + 3 * launcher.n_multiprocessors - 1) / (3 * launcher.n_multiprocessors);
  const auto fits = [&](int k) { return places(call.n_cols, call.n_col_tiles, k).total <= kMaxShared_bytes; };
  if (wanted > 4 && fits(8)) return launch<8>(launcher, call, n_tiles);
  if (wanted > 2 && fits(4)) return launch<4>(launcher, call, n_tiles);
  if ((wanted > 1 || gate) && (gate || fits(2))) return launch<2>(launcher, call, n_tiles);
  return launch<1>(launcher, call, n_tiles);
}

}  // namespace bitnet::cuda
