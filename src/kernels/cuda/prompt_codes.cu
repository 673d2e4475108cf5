#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/prompt_ops.h"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxFours = 18;

// A block: one token. A thread has kFours times four columns. kAhead: it has the registers to fetch the norm's weights
// before the input is there.
template <int kFours, bool kAhead>
__global__ void __launch_bounds__(kThreads)
    normed_codes_kernel(const float* x, const float* norm, float eps, const __grid_constant__ TiledCodes out) {
  extern __shared__ __align__(16) float squares[];
  __shared__ float shared[kThreads / 32];
  __shared__ int shared_sum[kThreads / 32];
  const int tid = int(threadIdx.x), token = int(blockIdx.x), n_fours = out.n_cols / 4;
  const int stride = square_stride(out.n_cols);
  const auto weight_at = [&](int at) { return __ldg(reinterpret_cast<const float4*>(norm) + at); };
  float4 weights[kAhead ? kFours : 1];
  if (kAhead && norm != nullptr) {
#pragma unroll
    for (int i = 0; i < (kAhead ? kFours : 0); ++i) weights[i] = weight_at(min(tid + i * kThreads, n_fours - 1));
  }
  launch_dependents();
  wait_for_dependencies();
  float4 v[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int at = tid + i * kThreads;
    v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at < n_fours) v[i] = load4(x + int64_t(token) * out.n_cols + 4 * at);
  }
  if (norm != nullptr) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      if (tid + i * kThreads < n_fours) put_squares(v[i], tid + i * kThreads, stride, squares);
    }
    __syncthreads();
    const float r = row_factor(squares, stride, out.n_cols, eps);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int at = tid + i * kThreads;
      if (at < n_fours) v[i] = scaled(v[i], r, kAhead ? weights[kAhead ? i : 0] : weight_at(at));
    }
  }
  float absmax = 0.0f;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
  }
  const float scale = quantizing_scale(block_max(absmax, shared));
  const int row = token % kTokenBlock;
  int8_t* const block =
      out.codes + (out.fragments ? int64_t(token) * out.n_col_tiles * kTileCols
                                 : int64_t(token / kTokenBlock) * out.n_col_tiles * (kTokenBlock * kTileCols));
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int at = tid + i * kThreads;
    if (at >= out.n_col_tiles * 32) break;
    const uint32_t word =
        uint32_t(uint8_t(int(quantized(v[i].x, scale)))) | uint32_t(uint8_t(int(quantized(v[i].y, scale)))) << 8 |
        uint32_t(uint8_t(int(quantized(v[i].z, scale)))) << 16 | uint32_t(uint8_t(int(quantized(v[i].w, scale)))) << 24;
    const int piece = at % 32 / 4 ^ (row & 7);
    const int place = out.fragments ? at / 32 * kTileCols + fragment_word(at % 32) * 4
                                    : at / 32 * (kTokenBlock * kTileCols) + row * kTileCols + piece * 16 + at % 4 * 4;
    *reinterpret_cast<uint32_t*>(block + place) = word;
    sum = __dp4a(int(word), 0x01010101, sum);
  }
  sum = block_sum(sum, shared_sum);
  if (tid > 0) return;
  out.inv_scales[token] = 1.0f / scale;
  out.sums[token] = sum;
}

}  // namespace

bool normed_codes_takes(int64_t n_cols) { return n_cols % 16 == 0 && n_cols <= kMaxFours * kThreads * 4; }

cudaError_t normed_codes(const Launcher& launcher, const float* x, const float* norm, float eps,
                         const TiledCodes& out) {
  const int fours = (out.n_col_tiles * 32 + kThreads - 1) / kThreads;
  const auto launch = [&](auto kernel) {
    return launch_kernel(launcher, dim3(unsigned(out.n_tokens)), dim3(kThreads), squares_bytes(out.n_cols), kernel, x,
                         norm, eps, out);
  };
  const bool few = out.n_tokens <= 2 * launcher.n_multiprocessors;  // no more blocks than run at once in any case
  if (!few && row_codes_takes(launcher, out)) return row_codes(launcher, x, norm, eps, out);
  if (fours <= 3) return launch(normed_codes_kernel<3, true>);
  if (fours <= 7) return few ? launch(normed_codes_kernel<7, true>) : launch(normed_codes_kernel<7, false>);
  return launch(normed_codes_kernel<kMaxFours, false>);
}

}  // namespace bitnet::cuda
