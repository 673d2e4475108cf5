#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/head_bounds.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/wgmma.cuh"

// The best tokens without reading the whole head (numerics.md 10). Each row w has a copy w~ = step * int8 code, the
// input x a copy x~ = (256 high + low) / scale in 16 bits. As in kernels/cpu/head_sketch.h, the exact product is within
//   bound = |w - w~| (|x| + |x - x~|) + |w| (|x - x~| + slack |x|)
// of the integers' product; slack, (n_cols / 16 + 64) 2^-24, covers the rounding of the exact product's lane sum and of
// what is computed here, and lengths are enlarged by more than their own rounding. Rows whose upper bound reaches the
// greatest lower bound get their exact product.
//
// The integers come from tensor cores: high and low of one input are two columns, so that one lane ends with both.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumnBytes = kTileCols;  // of a column in a column tile
constexpr int kFewTokens = 4;            // whose candidates come as fast as a better floor does
constexpr int kBlockTokens = 32;         // whose codes have room in a block

__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

// A warp: one row. A lane has four columns at a time.
__global__ void build_kernel(FloatTable table, int64_t first_row, Sketch sketch) {
  const int64_t i_row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32, row = first_row + i_row;
  const int lane = int(threadIdx.x % 32);
  if (i_row >= table.n_rows) return;
  const uint8_t* const from = table.data + i_row * table.row_bytes;
  float absmax = 0.0f;
  for (int64_t i = lane; i < table.n_cols; i += 32) absmax = fmaxf(absmax, fabsf(widen(table.type, from, i)));
  for (int step = 16; step > 0; step /= 2) absmax = fmaxf(absmax, __shfl_xor_sync(kFullWarp, absmax, step));
  const float step = absmax / 127.0f, inverse = step > 0.0f ? 1.0f / step : 0.0f;
  float error = 0.0f, length = 0.0f;
  for (int64_t i = 4 * lane; i < table.n_cols; i += 128) {
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const float w = widen(table.type, from, i + b);
      const int code = max(-127, min(127, __float2int_rn(w * inverse)));
      word |= uint32_t(uint8_t(code)) << (8 * b);
      const float off = w - step * float(code);
      error += off * off;
      length += w * w;
    }
    const int c = int(i % 32);
    const int64_t step_at = (row / 16 * sketch.n_col_tiles + i / 128) * 4 + i % 128 / 32;
    reinterpret_cast<uint32_t*>(
        sketch.codes)[(step_at * 32 + row % 8 * 4 + c % 16 / 4) * 4 + row % 16 / 8 + c / 16 * 2] = word;
  }
  error = warp_sum(error);
  length = warp_sum(length);
  if (lane > 0) return;
  sketch.steps[row] = step;
  sketch.errors[row] = sqrtf(error) * kEnlarged + 1e-6f * sqrtf(length);
  sketch.lengths[row] = sqrtf(length) * kEnlarged;
}

// Where word j of 128 columns' codes lies in a column of a column tile. For mma.sync lane t reads its eight words as
// two pieces of 16 bytes; in odd columns their halves change places, which keeps a quarter warp's pieces in different
// banks. As many columns as go by wgmma lie in their order, swizzled.
__device__ inline int column_word(int j, int column, int n_columns) {
#if BN_HAS_WGMMA
  if (n_columns == 2 * kBlockTokens) return (j / 4 ^ (column & 7)) * 4 + j % 4;
#endif
  const int at = fragment_word(j), half = at % 8 / 4;
  return (half ^ (column & 1)) * 16 + at / 8 * 4 + at % 4;
}

// The codes of x [n_cols] in shared memory, by the whole block, as columns 2 token and 2 token + 1 of n_columns. The
// caller has a barrier in front of it and behind it.
__device__ inline HeadInput put_codes(const float* x, int n_cols, int token, int n_columns, uint32_t* codes) {
  __shared__ float shared[32];
  __shared__ float sums[2][32];
  const int tid = int(threadIdx.x), n_threads = int(blockDim.x), n_warps = n_threads / 32, n_fours = n_cols / 4;
  float absmax = 0.0f;
  for (int i = tid; i < n_fours; i += n_threads) {
    const float4 v = reinterpret_cast<const float4*>(x)[i];
    absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
  }
  absmax = block_max(absmax, shared);
  const float scale = absmax > 0.0f ? 32512.0f / absmax : 0.0f, inv_scale = absmax / 32512.0f;
  float length = 0.0f, error = 0.0f;
  for (int i = tid; i < n_tiles(n_cols, kTileCols) * 32; i += n_threads) {
    uint32_t high = 0, low = 0;
    if (i < n_fours) {
      const float4 four = reinterpret_cast<const float4*>(x)[i];
      const float v[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int q = __float2int_rn(v[e] * scale), h = (q + 128) >> 8;
        high |= uint32_t(uint8_t(h)) << (8 * e);
        low |= uint32_t(uint8_t(q - h * 256)) << (8 * e);
        const float off = v[e] - float(q) * inv_scale;
        length += v[e] * v[e];
        error += off * off;
      }
    }
    uint32_t* const to = codes + (size_t(i / 32) * n_columns + 2 * token) * (kColumnBytes / 4);
    to[column_word(i % 32, 2 * token, n_columns)] = high;
    to[kColumnBytes / 4 + column_word(i % 32, 2 * token + 1, n_columns)] = low;
  }
  length = warp_sum(length);
  error = warp_sum(error);
  if (tid % 32 == 0) sums[0][tid / 32] = length, sums[1][tid / 32] = error;
  __syncthreads();
  length = error = 0.0f;
  for (int i = 0; i < n_warps; ++i) length += sums[0][i], error += sums[1][i];
  const float x_length = sqrtf(length) * kEnlarged;
  return {inv_scale, x_length, sqrtf(error) * kEnlarged + 1e-6f * x_length, slack_of(n_cols)};
}

__device__ inline void remember(const HeadInput& x, HeadRow* row) {
  row->inv_scale = x.inv_scale;
  row->length = x.length;
  row->error = x.error;
}

// A block: one of several tokens.
__global__ void __launch_bounds__(kThreads) codes_kernel(const __grid_constant__ TokenHead call, int n_columns) {
  extern __shared__ __align__(16) float memory[];
  const int n_cols = int(call.table.n_cols), token = int(blockIdx.x);
  launch_dependents();
  wait_for_dependencies();
  load_normed_row(call.x + int64_t(token) * n_cols, call.norm, call.eps, n_cols, memory, memory + n_cols);
  __syncthreads();
  for (int i = int(threadIdx.x); i < n_cols; i += kThreads) call.normed[int64_t(token) * n_cols + i] = memory[i];
  uint32_t* const codes =
      call.codes + size_t(token / kBlockTokens) * call.sketch.n_col_tiles * n_columns * (kColumnBytes / 4);
  const HeadInput x = put_codes(memory, n_cols, token % kBlockTokens, n_columns, codes);
  if (threadIdx.x == 0) remember(x, call.rows + token);
}

__device__ inline uint4 load_streaming(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// The integers of a row tile with 4 kColumns tokens; acc[c] of a lane: rows g and g + 8 with the high and the low codes
// of token 4c + t. `columns`: the codes in shared memory.
template <int kColumns>
__device__ __forceinline__ void multiply_tile(const uint4* from, const uint32_t* codes, int n_col_tiles, int lane,
                                              int (&acc)[kColumns][4]) {
  const uint4* const columns = reinterpret_cast<const uint4*>(codes) + lane / 4 * (kColumnBytes / 16) + lane % 4;
  const int odd = lane / 4 & 1;
  uint4 next[4];
#pragma unroll
  for (int s = 0; s < 4; ++s) next[s] = load_streaming(from + s * 32);
#pragma unroll 2
  for (int k = 0; k < n_col_tiles; ++k) {
    uint4 a[4];
#pragma unroll
    for (int s = 0; s < 4; ++s) a[s] = next[s];
    const int ahead = min(k + 1, n_col_tiles - 1);
#pragma unroll
    for (int s = 0; s < 4; ++s) next[s] = load_streaming(from + (ahead * 4 + s) * 32);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const uint4* const column = columns + (k * kColumns + c) * (8 * kColumnBytes / 16);
      const uint4 low = column[odd * 4], high = column[(1 - odd) * 4];
      mma_s8s8(acc[c], a[0], low.x, low.y);
      mma_s8s8(acc[c], a[1], low.z, low.w);
      mma_s8s8(acc[c], a[2], high.x, high.y);
      mma_s8s8(acc[c], a[3], high.z, high.w);
    }
  }
}

#if BN_HAS_WGMMA
// The same with all tokens of a block, by the four warps of a warpgroup with a row tile each. Registers belong to the
// tensor cores until a wait, so that codes come two column tiles ahead into three sets of them.
__device__ __forceinline__ void multiply_tiles(const uint4* from, const uint32_t* codes, int n_col_tiles,
                                               int (&acc)[2 * kBlockTokens / 8][4]) {
  constexpr int kSets = 3;
  int d[kBlockTokens];
#pragma unroll
  for (int i = 0; i < kBlockTokens; ++i) d[i] = 0;
  uint4 a[kSets][4];
  const auto load = [&](int k, uint4(&set)[4]) {
#pragma unroll
    for (int s = 0; s < 4; ++s) set[s] = load_streaming(from + (k * 4 + s) * 32);
  };
#pragma unroll
  for (int j = 0; j < kSets - 1; ++j) load(min(j, n_col_tiles - 1), a[j]);
  const uint32_t base = shared_address(codes);
#pragma unroll 1
  for (int first = 0; first < n_col_tiles; first += kSets) {
#pragma unroll
    for (int j = 0; j < kSets; ++j) {
      const int k = first + j;
      if (k >= n_col_tiles) continue;
      const uint64_t descriptor = swizzled_descriptor(base + uint32_t(k * 2 * kBlockTokens * kColumnBytes));
      wgmma_fence();
#pragma unroll
      for (int s = 0; s < 4; ++s) wgmma_s8s8(d, a[j][s], descriptor + uint64_t(2 * s));
      wgmma_commit();
      wgmma_wait<1>();
      load(min(k + kSets - 1, n_col_tiles - 1), a[(j + kSets - 1) % kSets]);
    }
  }
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < kBlockTokens; ++i) acc[i / 4][i % 4] = d[i];
}
#endif

__host__ __device__ constexpr int bound_threads(int columns) { return columns == 1 ? 256 : 512; }
// On a multiprocessor at once.
__host__ __device__ constexpr int bound_blocks(int columns) { return columns == 1 ? 4 : columns == 2 ? 2 : 1; }

// Upper bounds of all products with up to 4 kColumns tokens, and their greatest lower bounds. A warp: one row tile
// after the other. A single token's input is normed and quantised here, by every block. Of more than kBlockTokens
// tokens every other block has the second half; both read the same codes at about the same time, once from the device's
// memory.
template <int kColumns>
__global__ void __launch_bounds__(bound_threads(kColumns), bound_blocks(kColumns))
    bound_kernel(const __grid_constant__ TokenHead call) {
  constexpr int kBlock = bound_threads(kColumns);
  constexpr int kAlignment = kColumns == 8 ? 1024 : 128;
  constexpr bool kRows = 4 * kColumns > kFewTokens;  // whether anybody asks whose the floor is
  extern __shared__ __align__(16) float memory[];
  uint32_t* const codes =  // [n_col_tiles, 8 kColumns] columns
      reinterpret_cast<uint32_t*>(memory) + (kAlignment - shared_address(memory) % kAlignment) % kAlignment / 4;
  __shared__ HeadInput inputs[4 * kColumns];
  __shared__ unsigned long long floors[4 * kColumns];
  const int n_cols = int(call.table.n_cols), n_col_tiles = call.sketch.n_col_tiles;
  const int tid = int(threadIdx.x), lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_code_words = n_col_tiles * 8 * kColumns * (kColumnBytes / 4);
  const int n_halves = kColumns == 8 && call.n_tokens > kBlockTokens ? 2 : 1, half = int(blockIdx.x) % n_halves;
  const int n_tokens = min(call.n_tokens - half * kBlockTokens, 4 * kColumns);
  const int block_of_half = int(blockIdx.x) / n_halves, n_blocks = int(gridDim.x) / n_halves;
  HeadRow* const rows = call.rows + half * kBlockTokens;
  float* const logits = call.logits + half * kBlockTokens * call.table.n_rows;
  if (tid < 4 * kColumns) floors[tid] = 0;
  // The first codes come to the cache while the input is still being computed.
  const int64_t first_tile = int64_t(block_of_half) * (kBlock / 32) + tid / 32;
  if (first_tile < (call.table.n_rows + 15) / 16) {
    const int64_t tile_bytes = int64_t(n_col_tiles) * 16 * kTileCols;
    for (int64_t at = lane * 128; at < min(tile_bytes, int64_t{8192}); at += 32 * 128) {
      prefetch(call.sketch.codes + first_tile * tile_bytes + at);
    }
  }
  launch_dependents();
  wait_for_dependencies();
  if (kColumns == 1 && call.codes == nullptr) {
    float* const x = reinterpret_cast<float*>(codes + n_code_words);
    for (int i = tid; i < n_code_words; i += kBlock) codes[i] = 0;
    load_normed_row(call.x, call.norm, call.eps, n_cols, x, x + n_cols);
    __syncthreads();
    if (blockIdx.x == 0) {
      for (int i = tid; i < n_cols; i += kBlock) call.normed[i] = x[i];
    }
    const HeadInput input = put_codes(x, n_cols, 0, 8, codes);
    if (tid == 0) {
      inputs[0] = input;
      if (blockIdx.x == 0) remember(input, call.rows);
    }
  } else {
    for (int i = tid; i < n_code_words / 4; i += kBlock) {
      async_copy16(codes + 4 * i, call.codes + size_t(half) * n_code_words + 4 * i);
    }
    async_commit();
    if (tid < n_tokens) {
      const HeadRow& row = rows[tid];
      inputs[tid] = {load1(&row.inv_scale), load1(&row.length), load1(&row.error), slack_of(n_cols)};
    }
    async_wait<0>();
  }
#if BN_HAS_WGMMA
  if (kColumns == 8) proxy_fence();
#endif
  __syncthreads();

  const int64_t n_rows = call.table.n_rows, n_row_tiles = (n_rows + 15) / 16;
  float floor[kColumns];
  int floor_row[kColumns] = {};
#pragma unroll
  for (int c = 0; c < kColumns; ++c) floor[c] = -INFINITY;
  // A warpgroup stays together.
  constexpr int kTogether = kColumns == 8 ? 4 : 1;
  for (int64_t first = int64_t(block_of_half) * (kBlock / 32) + tid / 32 / kTogether * kTogether; first < n_row_tiles;
       first += int64_t(n_blocks) * (kBlock / 32)) {
    const int64_t tile = first + tid / 32 % kTogether;
    const uint4* const from = reinterpret_cast<const uint4*>(call.sketch.codes) +
                              (tile < n_row_tiles ? tile : n_row_tiles - 1) * n_col_tiles * 128 + lane;
    int acc[kColumns][4] = {};
#if BN_HAS_WGMMA
    if constexpr (kColumns == 8) {
      multiply_tiles(from, codes, n_col_tiles, acc);
    } else {
      multiply_tile(from, codes, n_col_tiles, lane, acc);
    }
#else
    multiply_tile(from, codes, n_col_tiles, lane, acc);
#endif
#pragma unroll
    for (int eight = 0; eight < 2; ++eight) {
      const int64_t row = tile * 16 + eight * 8 + g;
      if (row >= n_rows) continue;
      const float step = call.sketch.steps[row];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int token = c * 4 + t;
        if (token >= n_tokens) continue;
        const HeadInput& x = inputs[token];
        const float product = 256.0f * float(acc[c][2 * eight]) + float(acc[c][2 * eight + 1]);
        const float most = (product * x.inv_scale) * step + bound_of(call.sketch, row, x);
        logits[token * n_rows + row] = most;
        const float least = lower_bound(call.sketch, row, x, most);
        if (kRows && least > floor[c]) floor_row[c] = int(row);
        floor[c] = fmaxf(floor[c], least);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    unsigned long long best = floor_key(floor[c], floor_row[c]);
    for (int step = 4; step < 32; step *= 2) {
      const unsigned long long other = __shfl_xor_sync(kFullWarp, best, step);
      best = other > best ? other : best;
    }
    if (g == 0) atomicMax(&floors[c * 4 + t], best);
    if (kColumns == 1 && call.floors != nullptr && lane == 0) {
      call.floors[blockIdx.x * (kBlock / 32) + tid / 32] = floor_of(best);
    }
  }
  __syncthreads();
  if (tid < n_tokens) atomicMax(&rows[tid].floor, floors[tid]);
}

// The floor becomes the exact product of the row that it is of: half as far from the best one, so that far fewer rows
// reach it. A block: one token.
__global__ void __launch_bounds__(32) row_floor_kernel(const __grid_constant__ TokenHead call) {
  extern __shared__ __align__(16) float memory[];
  const int n_cols = int(call.table.n_cols), lane = int(threadIdx.x), token = int(blockIdx.x);
  launch_dependents();
  wait_for_dependencies();
  unsigned long long* const floor = &call.rows[token].floor;
  const unsigned long long before = *const_cast<const volatile unsigned long long*>(floor);
#pragma unroll 10
  for (int i = lane; i < n_cols / 4; i += 32) {
    reinterpret_cast<float4*>(memory)[i] = load4(call.normed + int64_t(token) * n_cols + 4 * i);
  }
  __syncwarp();
  const int row = int(~uint32_t(before));
  const float sum = exact_product(call.table, row, memory, memory + n_cols, lane);
  if (lane == 0 && sum > floor_of(before)) *floor = floor_key(sum, row);
}

// The exact products of all rows whose upper bound reaches the floor. Blocks in y: the tokens.
__global__ void __launch_bounds__(kThreads) choose_kernel(const __grid_constant__ TokenHead call, bool put_logits) {
  extern __shared__ __align__(16) float memory[];
  constexpr int kAhead = 8;
  const int n_cols = int(call.table.n_cols), tid = int(threadIdx.x), lane = tid % 32, token = int(blockIdx.y);
  const int n_threads = int(blockDim.x);
  float* const x = memory;
  float* const products = memory + n_cols + tid / 32 * n_cols;
  float* const logits = call.logits + int64_t(token) * call.table.n_rows;
  launch_dependents();
  wait_for_dependencies();
  for (int i = tid; i < n_cols / 4; i += n_threads) {
    reinterpret_cast<float4*>(x)[i] = load4(call.normed + int64_t(token) * n_cols + 4 * i);
  }
  __syncthreads();
  const unsigned raised = *const_cast<const volatile unsigned*>(&call.rows[token].inverted_floor);
  const float floor = raised != 0 ? unordered(~raised)
                                  : floor_of(*const_cast<const volatile unsigned long long*>(&call.rows[token].floor));
  const int64_t n_rows = call.table.n_rows, stride = int64_t(gridDim.x) * n_threads;
  unsigned long long best = 0;
  for (int64_t first = int64_t(blockIdx.x) * n_threads + tid; first - lane < n_rows; first += kAhead * stride) {
    float upper[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) upper[j] = first + j * stride < n_rows ? load1(logits + first + j * stride) : 0.0f;
    unsigned candidates = 0;  // NaN is one
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const bool there = first + j * stride < n_rows;
      if (there && !(upper[j] < floor)) candidates |= 1u << j;
      if (put_logits && there) logits[first + j * stride] = -INFINITY;
    }
    for (unsigned left; (left = __ballot_sync(kFullWarp, candidates != 0)) != 0;) {
      const int owner = __ffs(int(left)) - 1, j = __ffs(int(__shfl_sync(kFullWarp, candidates, owner))) - 1;
      const int64_t row = first - lane + owner + j * stride;
      const float sum = exact_product(call.table, row, x, products, lane);
      const unsigned long long key = ordered_logit(sum, int(row));
      best = key > best ? key : best;
      if (call.candidates != nullptr && lane == 0) {
        const unsigned at = atomicAdd(&call.rows[token].n_candidates, 1u);
        if (at < kMaxCandidates) call.candidates[at] = key;
      }
      if (lane != owner) continue;
      candidates &= candidates - 1;
      if (put_logits) logits[row] = sum;
    }
  }
  finish_best(call, token, gridDim.x, best);
}

template <int kColumns>
cudaError_t launch_bound(const Launcher& launcher, const TokenHead& call) {
  const size_t n_cols = size_t(call.table.n_cols);
  size_t n_bytes = size_t(call.sketch.n_col_tiles) * 8 * kColumns * kColumnBytes;
  if (call.codes == nullptr) n_bytes += n_cols * 4 + halves_bytes(int(n_cols));
  n_bytes += kColumns == 8 ? 1024 : 128;
  const int n_blocks = bound_blocks(kColumns) * launcher.n_multiprocessors;
  const int n_halves = call.n_tokens > kBlockTokens ? 2 : 1;
  return launch_kernel(launcher, dim3(unsigned(n_blocks < n_halves ? n_halves : n_blocks / n_halves * n_halves)),
                       dim3(bound_threads(kColumns)), n_bytes, bound_kernel<kColumns>, call);
}

}  // namespace

size_t sketch_code_bytes(int64_t n_rows, int64_t n_cols) {
  return size_t(n_tiles(n_rows, 16) * n_tiles(n_cols, kTileCols)) * 16 * kTileCols;
}

void build_sketch(cudaStream_t stream, const FloatTable& table, int64_t first_row, const Sketch& sketch) {
  build_kernel<<<unsigned((table.n_rows + 7) / 8), 256, 0, stream>>>(table, first_row, sketch);
}

int sketch_warps(const Launcher& launcher) {
  return bound_blocks(1) * launcher.n_multiprocessors * (bound_threads(1) / 32);
}

int head_tokens(const FloatTable& table) {
  constexpr size_t kMost_bytes = 226 * 1024;
  const size_t n_col_tiles = size_t(n_tiles(table.n_cols, kTileCols));
  for (int n : {kHeadTokens, 16, 8, 4}) {
    if (n_col_tiles * size_t(2 * (n < kBlockTokens ? n : kBlockTokens)) * kColumnBytes + 1024 <= kMost_bytes) return n;
  }
  return 1;
}

size_t head_code_bytes(int64_t n_cols) { return size_t(n_tiles(n_cols, kTileCols)) * 2 * kHeadTokens * kColumnBytes; }

cudaError_t best_of_head(const Launcher& launcher, const TokenHead& wanted, int64_t n_best) {
  TokenHead call = wanted;
  const size_t n_cols = size_t(call.table.n_cols);
  cudaError_t error = cudaSuccess;
  if (call.n_tokens == 1) {
    call.codes = nullptr;
    error = launch_bound<1>(launcher, call);
  } else {
    const int n_columns = call.n_tokens <= 4 ? 8 : call.n_tokens <= 8 ? 16 : call.n_tokens <= 16 ? 32 : 64;
    error = launch_kernel(launcher, dim3(unsigned(call.n_tokens)), dim3(kThreads),
                          n_cols * 4 + halves_bytes(int(n_cols)), codes_kernel, call, n_columns);
    if (error != cudaSuccess) return error;
    error = n_columns == 8    ? launch_bound<1>(launcher, call)
            : n_columns == 16 ? launch_bound<2>(launcher, call)
            : n_columns == 32 ? launch_bound<4>(launcher, call)
                              : launch_bound<8>(launcher, call);
  }
  if (error != cudaSuccess) return error;
  const bool several = n_best > 1 || call.draw != nullptr;
  if (several) {
    error = raise_floor(launcher, call, n_best);
  } else if (call.n_tokens > kFewTokens) {
    error = launch_kernel(launcher, dim3(unsigned(call.n_tokens)), dim3(32), 2 * n_cols * sizeof(float),
                          row_floor_kernel, call);
  }
  if (error != cudaSuccess) return error;
  // Many candidates come over the bus, whose latency a warp waits for with each.
  const int n_blocks = (several ? 2 : 1) * launcher.n_multiprocessors / call.n_tokens;
  const int n_warps = product_warps(call.table);
  return launch_kernel(launcher, dim3(unsigned(n_blocks > 8 ? n_blocks : 8), unsigned(call.n_tokens)),
                       dim3(unsigned(n_warps) * 32), product_bytes(call.table, n_warps), choose_kernel, call, several);
}

}  // namespace bitnet::cuda
