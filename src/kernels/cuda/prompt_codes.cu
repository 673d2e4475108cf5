#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/normed_row.cuh"
#include "kernels/cuda/prompt_ops.h"

// Norm and codes of rows in registers. What a thread does before the kernel in front of this one has ended, and how few
// instructions follow, is what counts: where rows are few, latency is all.
namespace bitnet::cuda {
namespace {

constexpr int kMaxWarps = 32;
constexpr int kMaxBlocks = 72;  // of 256 columns

__device__ inline uint32_t code_bits(float x, float scale) {
  // The code is the lowest byte. As quantized(), which gives 127 for a NaN too.
  return __float_as_uint(fmaxf(fminf(x * scale, 127.0f), -128.0f) + kRoundMagic);
}
__device__ inline uint32_t short_code_word(const float4& v, float scale) {
  const uint32_t low = __byte_perm(code_bits(v.x, scale), code_bits(v.y, scale), 0x0040);
  const uint32_t high = __byte_perm(code_bits(v.z, scale), code_bits(v.w, scale), 0x0040);
  return __byte_perm(low, high, 0x5410);
}

// A block: one token. A warp has kParts blocks of rule 5, four columns of each of their halves a lane. kAhead: it has
// the registers to fetch the norm's weights before the input is there. kLate: the kernel that follows gets no place
// beside this one's blocks, which are many.
template <int kParts, int kMostThreads, int kMinBlocks, bool kAhead, bool kLate>
__global__ void __launch_bounds__(kMostThreads, kMinBlocks)
    normed_codes_kernel(const float* x, const float* norm, float eps, const __grid_constant__ TiledCodes out) {
  static_assert(kPairBlock == 2 * kTileCols);
  constexpr int kHalves = 2 * kParts;
  __shared__ __align__(16) float squares[kParts * kMaxWarps];
  __shared__ unsigned maxima[kMaxWarps];
  __shared__ int sums[kMaxWarps];
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, n_warps = int(blockDim.x) / 32;
  const int token = int(blockIdx.x), n_fours = out.n_cols / 4;
  const auto tile_of = [&](int i) { return 2 * (warp + i / 2 * n_warps) + i % 2; };
  const float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  float4 weights[kHalves];
  const auto load_weights = [&] {
#pragma unroll
    for (int i = 0; i < kHalves; ++i) {
      const int at = tile_of(i) * 32 + lane;
      weights[i] = at < n_fours ? __ldg(reinterpret_cast<const float4*>(norm) + at) : none;
    }
  };
  if (kAhead && norm != nullptr) load_weights();
  const float* const row = x + int64_t(token) * out.n_cols + 4 * lane;
  const int place = token % kTokenBlock, tile_bytes = out.fragments ? kTileCols : kTokenBlock * kTileCols;
  const int within =
      out.fragments ? fragment_word(lane) * 4 : place * kTileCols + (lane / 4 ^ (place & 7)) * 16 + lane % 4 * 4;
  int8_t* const to =
      out.codes + int64_t(out.fragments ? token : token / kTokenBlock) * out.n_col_tiles * tile_bytes + within;
  if (!kLate) launch_dependents();
  wait_for_dependencies();

  float4 v[kHalves];
#pragma unroll
  for (int i = 0; i < kHalves; ++i)
    v[i] = tile_of(i) * 32 + lane < n_fours ? load4(row + tile_of(i) * kTileCols) : none;
  if (norm != nullptr) {
    float fours[kHalves];
#pragma unroll
    for (int i = 0; i < kHalves; ++i) fours[i] = four_squares(v[i]);
    const float block_sum = block_pair_sums<kParts>(fours);
    if (lane % 2 == 0 && lane < kHalves) squares[warp + lane / 2 * n_warps] = block_sum;
    if (!kAhead) load_weights();
    __syncthreads();
    const int n_blocks = (out.n_cols + kPairBlock - 1) / kPairBlock;
    float sum = 0.0f;
    int i = 0;
    for (; i + 4 <= n_blocks; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(squares + i);
      sum += four.x;
      sum += four.y;
      sum += four.z;
      sum += four.w;
    }
    for (; i < n_blocks; ++i) sum += squares[i];
    const float r = norm_factor(sum, out.n_cols, eps);
#pragma unroll
    for (int j = 0; j < kHalves; ++j) v[j] = scaled(v[j], r, weights[j]);
  }
  float absmax = 0.0f;
#pragma unroll
  for (int i = 0; i < kHalves; ++i) {
    absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
  }
  // Not negative and no NaN, so ordered like their bits.
  unsigned bits = __reduce_max_sync(kFullWarp, __float_as_uint(absmax));
  if (lane == 0) maxima[warp] = bits;
  __syncthreads();
  if (kLate) launch_dependents();
  bits = __reduce_max_sync(kFullWarp, lane < n_warps ? maxima[lane] : 0u);
  const float scale = quantizing_scale(__uint_as_float(bits));
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kHalves; ++i) {
    if (tile_of(i) >= out.n_col_tiles) continue;
    const uint32_t word = short_code_word(v[i], scale);
    *reinterpret_cast<uint32_t*>(to + int64_t(tile_of(i)) * tile_bytes) = word;
    sum = __dp4a(int(word), 0x01010101, sum);
  }
  sum = __reduce_add_sync(kFullWarp, sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (warp > 0) return;
  sum = __reduce_add_sync(kFullWarp, lane < n_warps ? sums[lane] : 0);
  if (lane > 0) return;
  out.inv_scales[token] = 1.0f / scale;
  out.sums[token] = sum;
}

}  // namespace

bool normed_codes_takes(int64_t n_cols) { return n_cols % 16 == 0 && n_cols <= kMaxBlocks * kPairBlock; }

cudaError_t normed_codes(const Launcher& launcher, const float* x, const float* norm, float eps,
                         const TiledCodes& out) {
  const int n_blocks = (out.n_cols + kPairBlock - 1) / kPairBlock;
  const auto launch = [&](auto kernel, int parts) {
    const int n_warps = (n_blocks + parts - 1) / parts;
    return launch_kernel(launcher, dim3(unsigned(out.n_tokens)), dim3(unsigned(n_warps) * 32), 0, kernel, x, norm, eps,
                         out);
  };
  const bool few = out.n_tokens <= 2 * launcher.n_multiprocessors;  // no more blocks than run at once in any case
  if (few && n_blocks <= kMaxWarps) return launch(normed_codes_kernel<1, kMaxWarps * 32, 1, true, false>, 1);
  if (n_blocks <= 16) return launch(normed_codes_kernel<2, 8 * 32, 1, true, true>, 2);
  if (n_blocks <= 27) return launch(normed_codes_kernel<3, 9 * 32, 3, false, true>, 3);
  return launch(normed_codes_kernel<4, kMaxBlocks / 4 * 32, 1, false, true>, 4);
}

}  // namespace bitnet::cuda
