#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/prompt_ops.h"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;  // of a row; of a wide one twice as many, where there are few
constexpr int kMaxFours = 18;

// A block of kBlock threads: one token. A thread has kFours times four columns. kAhead: it has the registers to fetch
// the norm's weights before the input is there.
template <int kBlock, int kFours, bool kAhead>
__global__ void __launch_bounds__(kBlock)
    normed_codes_kernel(const float* x, const float* norm, float eps, const __grid_constant__ TiledCodes out) {
  constexpr int kWarps = kBlock / 32;
  __shared__ __align__(16) float halves[kFours * kWarps];
  __shared__ float maxima[kWarps];
  __shared__ int sums[kWarps];
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, token = int(blockIdx.x);
  const int n_fours = out.n_cols / 4;
  const float* const row = x + int64_t(token) * out.n_cols;
  const auto weight_at = [&](int at) { return __ldg(reinterpret_cast<const float4*>(norm) + at); };
  float4 weights[kAhead ? kFours : 1];
  if (kAhead && norm != nullptr) {
#pragma unroll
    for (int i = 0; i < (kAhead ? kFours : 0); ++i) weights[i] = weight_at(min(tid + i * kBlock, n_fours - 1));
  }
  launch_dependents();
  wait_for_dependencies();
  float4 v[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int at = tid + i * kBlock;
    v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at < n_fours) v[i] = load4(row + 4 * at);
  }
  if (norm != nullptr) {
    float sums_of[kFours];
#pragma unroll
    for (int i = 0; i < kFours; ++i) sums_of[i] = warp_pair_sum(four_squares(v[i]));
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < kFours; ++i) halves[i * kWarps + warp] = sums_of[i];
    }
    __syncthreads();
    const float r = row_factor(halves, out.n_cols, eps);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int at = tid + i * kBlock;
      if (at < n_fours) v[i] = scaled(v[i], r, kAhead ? weights[kAhead ? i : 0] : weight_at(at));
    }
  }
  float absmax = 0.0f;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
  }
  // Not negative and no NaN, so ordered like their bits.
  unsigned bits = __reduce_max_sync(kFullWarp, __float_as_uint(absmax));
  if (lane == 0) maxima[warp] = __uint_as_float(bits);
  __syncthreads();
  bits = __reduce_max_sync(kFullWarp, lane < kWarps ? __float_as_uint(maxima[lane]) : 0u);
  const float scale = quantizing_scale(__uint_as_float(bits));
  const int place_in_block = token % kTokenBlock;
  int8_t* const to =
      out.codes + (out.fragments ? int64_t(token) * out.n_col_tiles * kTileCols
                                 : int64_t(token / kTokenBlock) * out.n_col_tiles * (kTokenBlock * kTileCols));
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int at = tid + i * kBlock;
    if (at >= out.n_col_tiles * 32) break;
    const uint32_t word = code_word(v[i], scale);
    const int piece = at % 32 / 4 ^ (place_in_block & 7);
    const int place = out.fragments
                          ? at / 32 * kTileCols + fragment_word(at % 32) * 4
                          : at / 32 * (kTokenBlock * kTileCols) + place_in_block * kTileCols + piece * 16 + at % 4 * 4;
    *reinterpret_cast<uint32_t*>(to + place) = word;
    sum = __dp4a(int(word), 0x01010101, sum);
  }
  sum = __reduce_add_sync(kFullWarp, sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (warp > 0) return;
  sum = __reduce_add_sync(kFullWarp, lane < kWarps ? sums[lane] : 0);
  if (lane > 0) return;
  out.inv_scales[token] = 1.0f / scale;
  out.sums[token] = sum;
}

}  // namespace

bool normed_codes_takes(int64_t n_cols) { return n_cols % 16 == 0 && n_cols <= kMaxFours * kThreads * 4; }

cudaError_t normed_codes(const Launcher& launcher, const float* x, const float* norm, float eps,
                         const TiledCodes& out) {
  const auto launch = [&](auto kernel, int n_threads) {
    return launch_kernel(launcher, dim3(unsigned(out.n_tokens)), dim3(unsigned(n_threads)), 0, kernel, x, norm, eps,
                         out);
  };
  const bool few = out.n_tokens <= 2 * launcher.n_multiprocessors;  // no more blocks than run at once in any case
  if (!few && row_codes_takes(launcher, out)) return row_codes(launcher, x, norm, eps, out);
  const int fours = (out.n_col_tiles * 32 + kThreads - 1) / kThreads;
  if (fours <= 3) return launch(normed_codes_kernel<kThreads, 3, true>, kThreads);
  if (few && fours <= 8) return launch(normed_codes_kernel<2 * kThreads, 4, true>, 2 * kThreads);
  if (fours <= 7) return launch(normed_codes_kernel<kThreads, 7, false>, kThreads);
  return launch(normed_codes_kernel<kThreads, kMaxFours, false>, kThreads);
}

}  // namespace bitnet::cuda
