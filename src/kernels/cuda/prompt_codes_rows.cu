#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/prompt_ops.h"

// Norm and codes of many tokens on Hopper. A block has two tokens, whose rows lie in shared memory: it is the many
// blocks of a multiprocessor, with few registers each, that keep it busy.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHalf = kThreads / 2;  // of one token
constexpr int kWarps = kThreads / 32;
constexpr int kMaxFours = 14;  // a thread's share of a row, four columns each
constexpr int kMaxBlocks = kMaxFours * kHalf * 4 / kPairBlock;

int fours_of(const TiledCodes& out) { return (out.n_col_tiles * 32 + kHalf - 1) / kHalf; }

__device__ inline uint32_t code_bits(float x, float scale) {
  return __float_as_uint(quantized(x, scale) + kRoundMagic);  // the code is the lowest byte
}
__device__ inline uint32_t code_word(const float4& v, float scale) {
  const uint32_t low = __byte_perm(code_bits(v.x, scale), code_bits(v.y, scale), 0x0040);
  const uint32_t high = __byte_perm(code_bits(v.z, scale), code_bits(v.w, scale), 0x0040);
  return __byte_perm(low, high, 0x5410);
}
__device__ inline float largest_of(const float4& v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// The sums of blocks of 256 squares, a block a warp at a time; `warp` of n_warps. A lane has eight neighbours, the
// upper four first where the lower ones' banks are taken.
__device__ inline void sum_blocks(const float4* row, int n_fours, int warp, int n_warps, int lane, float* sums) {
  const int first = lane / 4 & 1;
  for (int block = warp; block * (kPairBlock / 4) < n_fours; block += n_warps) {
    const int at = block * (kPairBlock / 4) + 2 * lane;
    float sum = 0.0f;
    if (at + first < n_fours) sum = four_squares(row[at + first]);
    if (at + 1 - first < n_fours) sum += four_squares(row[at + 1 - first]);
    sum = warp_pair_sum(sum);
    if (lane == 0) sums[block] = sum;
  }
}

// A thread has kBatches times kFours times four columns.
template <int kFours, int kBatches>
__global__ void __launch_bounds__(kThreads, kBatches == 1 ? 5 : 4)
    row_codes_kernel(const float* x, const float* norm, float eps, const __grid_constant__ TiledCodes out) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) float rows[];  // [2, n_cols]
  __shared__ __align__(8) uint64_t arrived;
  __shared__ float squares[2][kMaxBlocks], maxima[kWarps];
  __shared__ int sums[kWarps];
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, half = tid / kHalf, n_cols = out.n_cols;
  const int n_fours = n_cols / 4, pair = int(blockIdx.x), token = 2 * pair + half;
  if (tid == 0) {
    barrier_init(&arrived, 1);
    barrier_init_fence();
  }
  float4 weights[kFours];
  const auto load_weights = [&](int batch) {
    if (norm == nullptr) return;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int at = min(tid % kHalf + (batch * kFours + i) * kHalf, n_fours - 1);
      weights[i] = __ldg(reinterpret_cast<const float4*>(norm) + at);
    }
  };
  load_weights(0);
  __syncthreads();
  wait_for_dependencies();
  if (tid == 0) {
    const uint32_t n_bytes = uint32_t(min(2, out.n_tokens - 2 * pair)) * uint32_t(n_cols) * 4;
    barrier_expect(&arrived, n_bytes);
    bulk_copy(rows, x + int64_t(2 * pair) * n_cols, n_bytes, &arrived);
  }
  barrier_wait(&arrived, 0);
  float4* const row = reinterpret_cast<float4*>(rows + half * n_cols);
  float r = 1.0f;
  if (norm != nullptr) {
    sum_blocks(row, n_fours, warp % (kWarps / 2), kWarps / 2, lane, squares[half]);
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i * kPairBlock < n_cols; ++i) sum += squares[half][i];
    r = norm_factor(sum, n_cols, eps);
  }
  float absmax = 0.0f;
#pragma unroll
  for (int batch = 0; batch < kBatches; ++batch) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int at = tid % kHalf + (batch * kFours + i) * kHalf;
      if (at >= n_fours) break;
      float4 v = row[at];
      if (norm != nullptr) row[at] = v = scaled(v, r, weights[i]);
      absmax = fmaxf(absmax, largest_of(v));
    }
    if (batch + 1 < kBatches) load_weights(batch + 1);
  }
  for (int i = 16; i > 0; i /= 2) absmax = fmaxf(absmax, __shfl_xor_sync(kFullWarp, absmax, i));
  if (lane == 0) maxima[warp] = absmax;
  __syncthreads();
  launch_dependents();
  absmax = maxima[half * (kWarps / 2)];
#pragma unroll
  for (int i = 1; i < kWarps / 2; ++i) absmax = fmaxf(absmax, maxima[half * (kWarps / 2) + i]);
  const float scale = quantizing_scale(absmax);
  int sum = 0;
  if (token < out.n_tokens) {
    const int place = token % kTokenBlock;
    const int64_t block = int64_t(token / kTokenBlock) * out.n_col_tiles * (kTokenBlock * kTileCols);
    int8_t* const to =
        out.codes + (out.fragments ? int64_t(token) * out.n_col_tiles * kTileCols : block + place * kTileCols);
    const int tile_bytes = out.fragments ? kTileCols : kTokenBlock * kTileCols;
#pragma unroll 5
    for (int at = tid % kHalf; at < out.n_col_tiles * 32; at += kHalf) {
      const uint32_t word = at < n_fours ? code_word(row[at], scale) : 0u;
      const int piece = at % 32 / 4 ^ (place & 7), within = piece * 16 + at % 4 * 4;
      *reinterpret_cast<uint32_t*>(to + at / 32 * tile_bytes + (out.fragments ? fragment_word(at % 32) * 4 : within)) =
          word;
      sum = __dp4a(int(word), 0x01010101, sum);
    }
  }
  sum = __reduce_add_sync(kFullWarp, sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (tid % kHalf != 0 || token >= out.n_tokens) return;
  sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps / 2; ++i) sum += sums[half * (kWarps / 2) + i];
  out.inv_scales[token] = 1.0f / scale;
  out.sums[token] = sum;
#endif
}

}  // namespace

bool row_codes_takes(const Launcher& launcher, const TiledCodes& out) {
  return launcher.dependent && fours_of(out) <= kMaxFours;
}

cudaError_t row_codes(const Launcher& launcher, const float* x, const float* norm, float eps, const TiledCodes& out) {
  return launch_kernel(launcher, dim3(unsigned((out.n_tokens + 1) / 2)), dim3(kThreads),
                       size_t(2 * out.n_cols) * sizeof(float),
                       fours_of(out) <= 5 ? row_codes_kernel<5, 1> : row_codes_kernel<7, 2>, x, norm, eps, out);
}

}  // namespace bitnet::cuda
