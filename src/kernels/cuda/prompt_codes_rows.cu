#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/prompt_ops.h"

// Norm and codes of many tokens on Hopper. A block works through pairs of tokens, whose rows a thread copies to shared
// memory ahead of time; each thread has the norm's weights of its columns in registers. A sum of squares is a chain of
// additions in each of 16 lanes: one warp follows the chains of a pair while the others quantise the pair before it.
namespace bitnet::cuda {
namespace {

constexpr int kBuffers = 2;

// Blocks for narrow rows and for wide ones. kFours: four columns each of one of the kHalf threads that have a row.
template <bool kWide>
struct Size {
  static constexpr int kHalf = kWide ? 256 : 128, kFours = kWide ? 7 : 5, kBlocks = kWide ? 2 : 4;
  static constexpr int kWarps = kHalf / 16, kThreads = 2 * kHalf + 32;
};
template <bool kWide>
bool fits(const TiledCodes& out) {
  return out.n_col_tiles * 32 <= Size<kWide>::kHalf * Size<kWide>::kFours;
}

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

#if __CUDA_ARCH__ >= 900
template <int kThreads>
__device__ inline void barrier_of() {
  asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory");
}

// r of both rows, by a warp.
__device__ inline void follow_chains(const float* rows, int n_cols, float eps, int lane, float* factors) {
  const float* const from = rows + lane / 16 * n_cols + lane % 16;
  float sum = 0.0f;
#pragma unroll 16
  for (int i = 0; i < n_cols; i += 16) sum += from[i] * from[i];
  const float mean = sum_lanes(sum) / float(n_cols);
  if (lane % 16 == 0) factors[lane / 16] = 1.0f / sqrtf(mean + eps);
}
#endif

template <bool kWide>
__global__ void __launch_bounds__(Size<kWide>::kThreads, Size<kWide>::kBlocks)
    row_codes_kernel(const float* x, const float* norm, float eps, const __grid_constant__ TiledCodes out) {
#if __CUDA_ARCH__ >= 900
  constexpr int kHalf = Size<kWide>::kHalf, kFours = Size<kWide>::kFours, kWarps = Size<kWide>::kWarps;
  extern __shared__ __align__(128) float rows[];  // [kBuffers, 2, n_cols]
  __shared__ __align__(8) uint64_t full[kBuffers], known[kBuffers];
  __shared__ float factors[kBuffers][2], maxima[kWarps];
  __shared__ int sums[kWarps];
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, half = tid / kHalf % 2, n_cols = out.n_cols;
  const int n_fours = n_cols / 4, n_pairs = (out.n_tokens + 1) / 2, step = int(gridDim.x);
  const uint32_t row_bytes = uint32_t(n_cols) * 4;
  if (tid == 0) {
    for (int i = 0; i < kBuffers; ++i) {
      barrier_init(&full[i], 1);
      barrier_init(&known[i], 1);
    }
    barrier_init_fence();
  }
  // The norm's weights, asked for long before they are wanted; then the row's scaled values.
  float4 v[kFours];
  const auto load_weights = [&] {
    if (norm == nullptr) return;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      v[i] = __ldg(reinterpret_cast<const float4*>(norm) + min(tid % kHalf + i * kHalf, n_fours - 1));
    }
  };
  load_weights();
  __syncthreads();
  launch_dependents();
  wait_for_dependencies();
  const auto fetch = [&](int pair, int buffer) {
    if (pair >= n_pairs) return;
    const uint32_t n_rows = uint32_t(min(2, out.n_tokens - 2 * pair));
    barrier_expect(&full[buffer], n_rows * row_bytes);
    bulk_copy(rows + buffer * 2 * n_cols, x + int64_t(2 * pair) * n_cols, n_rows * row_bytes, &full[buffer]);
  };
  if (tid == 0) {
    for (int i = 0; i < kBuffers; ++i) fetch(int(blockIdx.x) + i * step, i);
  }
  int n = 0;
  if (warp == kWarps) {
    for (int pair = int(blockIdx.x); pair < n_pairs; pair += step, ++n) {
      const int buffer = n % kBuffers;
      barrier_wait(&full[buffer], uint32_t(n / kBuffers & 1));
      if (norm != nullptr) follow_chains(rows + buffer * 2 * n_cols, n_cols, eps, lane, factors[buffer]);
      __syncwarp();
      if (lane == 0) barrier_arrive(&known[buffer]);
    }
    return;
  }
  for (int pair = int(blockIdx.x); pair < n_pairs; pair += step, ++n) {
    const int buffer = n % kBuffers, token = 2 * pair + half;
    const float4* const row = reinterpret_cast<const float4*>(rows + (buffer * 2 + half) * n_cols);
    barrier_wait(&full[buffer], uint32_t(n / kBuffers & 1));
    barrier_wait(&known[buffer], uint32_t(n / kBuffers & 1));
    const float r = norm != nullptr ? factors[buffer][half] : 1.0f;
    float absmax = 0.0f;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int at = tid % kHalf + i * kHalf;
      const float4 x4 = at < n_fours ? row[at] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      v[i] = norm != nullptr ? scaled(x4, r, v[i]) : x4;
      absmax = fmaxf(absmax, largest_of(v[i]));
    }
    for (int i = 16; i > 0; i /= 2) absmax = fmaxf(absmax, __shfl_xor_sync(kFullWarp, absmax, i));
    if (lane == 0) maxima[warp] = absmax;
    barrier_of<2 * kHalf>();
    absmax = maxima[half * (kWarps / 2)];
#pragma unroll
    for (int i = 1; i < kWarps / 2; ++i) absmax = fmaxf(absmax, maxima[half * (kWarps / 2) + i]);
    const float scale = quantizing_scale(absmax);
    int sum = 0;
    if (token < out.n_tokens) {
      const int place = token % kTokenBlock;
      int8_t* const block = out.codes + int64_t(token / kTokenBlock) * out.n_col_tiles * (kTokenBlock * kTileCols) +
                            place * kTileCols;
#pragma unroll
      for (int i = 0; i < kFours; ++i) {
        const int at = tid % kHalf + i * kHalf, piece = at % 32 / 4 ^ (place & 7);
        if (at >= out.n_col_tiles * 32) break;
        const uint32_t word = at < n_fours ? code_word(v[i], scale) : 0u;
        *reinterpret_cast<uint32_t*>(block + at / 32 * (kTokenBlock * kTileCols) + piece * 16 + at % 4 * 4) = word;
        sum = __dp4a(int(word), 0x01010101, sum);
      }
    }
    load_weights();
    sum = __reduce_add_sync(kFullWarp, sum);
    if (lane == 0) sums[warp] = sum;
    barrier_of<2 * kHalf>();
    if (tid == 0) fetch(pair + kBuffers * step, buffer);
    if (tid % kHalf == 0 && token < out.n_tokens) {
      int all = 0;
#pragma unroll
      for (int i = 0; i < kWarps / 2; ++i) all += sums[half * (kWarps / 2) + i];
      out.inv_scales[token] = 1.0f / scale;
      out.sums[token] = all;
    }
  }
#endif
}

}  // namespace

bool row_codes_takes(const Launcher& launcher, const TiledCodes& out) {
  return launcher.dependent && !out.fragments && fits<true>(out);
}

cudaError_t row_codes(const Launcher& launcher, const float* x, const float* norm, float eps, const TiledCodes& out) {
  const auto start = [&](auto kernel, int n_threads, int blocks) {
    const int n_pairs = (out.n_tokens + 1) / 2, most = launcher.n_multiprocessors * blocks;
    return launch_kernel(launcher, dim3(unsigned(n_pairs < most ? n_pairs : most)), dim3(unsigned(n_threads)),
                         size_t(kBuffers) * 2 * out.n_cols * sizeof(float), kernel, x, norm, eps, out);
  };
  return fits<false>(out) ? start(row_codes_kernel<false>, Size<false>::kThreads, Size<false>::kBlocks)
                          : start(row_codes_kernel<true>, Size<true>::kThreads, Size<true>::kBlocks);
}

}  // namespace bitnet::cuda
