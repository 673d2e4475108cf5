#include "kernels/cuda/best_token.cuh"
#include "kernels/cuda/normed_row.cuh"

// The best token without reading the whole head (numerics.md 10). Each row w has a copy w~ = step * int8 code, the
// input x a copy x~ = (256 high + low) / scale in 16 bits. As in kernels/cpu/head_sketch.h, the exact product is within
//   bound = |w - w~| (|x| + |x - x~|) + |w| (|x - x~| + slack |x|)
// of the integers' product; slack, (n_cols / 16 + 64) 2^-24, covers the rounding of the exact product's lane sum and of
// what is computed here, and lengths are enlarged by more than their own rounding. Rows whose upper bound reaches the
// greatest lower bound get their exact product.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsAtOnce = 4;
constexpr float kEnlarged = 1.0f + 1e-4f;

__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

// A warp: one row.
__global__ void build_kernel(FloatTable table, int8_t* codes, float* steps, float* errors, float* lengths) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = int(threadIdx.x % 32);
  if (row >= table.n_rows) return;
  const uint8_t* const from = table.data + row * table.row_bytes;
  float absmax = 0.0f;
  for (int64_t i = lane; i < table.n_cols; i += 32) absmax = fmaxf(absmax, fabsf(widen(table.type, from, i)));
  for (int step = 16; step > 0; step /= 2) absmax = fmaxf(absmax, __shfl_xor_sync(kFullWarp, absmax, step));
  const float step = absmax / 127.0f, inverse = step > 0.0f ? 1.0f / step : 0.0f;
  float error = 0.0f, length = 0.0f;
  for (int64_t i = lane; i < table.n_cols; i += 32) {
    const float w = widen(table.type, from, i);
    const int code = max(-127, min(127, __float2int_rn(w * inverse)));
    codes[row * table.n_cols + i] = int8_t(code);
    const float off = w - step * float(code);
    error += off * off;
    length += w * w;
  }
  error = warp_sum(error);
  length = warp_sum(length);
  if (lane > 0) return;
  steps[row] = step;
  errors[row] = sqrtf(error) * kEnlarged + 1e-6f * sqrtf(length);
  lengths[row] = sqrtf(length) * kEnlarged;
}

__device__ inline int dp4a_s8(uint32_t a, uint32_t b, int c) { return __dp4a(int(a), int(b), c); }

__device__ inline unsigned order(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float unordered(unsigned bits) { return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits); }

__global__ void __launch_bounds__(kThreads) bound_kernel(const __grid_constant__ TokenHead call) {
  extern __shared__ __align__(16) float memory[];
  __shared__ float shared[kThreads / 32];
  __shared__ float sums[2][kThreads / 32];
  const int n_cols = int(call.table.n_cols), n_fours = n_cols / 4;
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32;
  float* const x = memory;
  uint32_t* const high = reinterpret_cast<uint32_t*>(memory + n_cols);  // [n_cols] int8, over the squares
  uint32_t* const low = high + n_fours;
  launch_dependents();
  wait_for_dependencies();
  load_normed_row(call.x, call.norm, call.eps, n_cols, x, memory + n_cols);
  float absmax = 0.0f;
  for (int i = tid; i < n_fours; i += kThreads) {
    const float4 v = reinterpret_cast<const float4*>(x)[i];
    if (blockIdx.x == 0) reinterpret_cast<float4*>(call.normed)[i] = v;
    absmax = fmaxf(absmax, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
  }
  absmax = block_max(absmax, shared);
  const float scale = absmax > 0.0f ? 32512.0f / absmax : 0.0f, inv_scale = absmax / 32512.0f;
  float length = 0.0f, error = 0.0f;
  for (int i = tid; i < n_fours; i += kThreads) {
    const float4 four = reinterpret_cast<const float4*>(x)[i];
    const float v[4] = {four.x, four.y, four.z, four.w};
    uint32_t high_word = 0, low_word = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int q = __float2int_rn(v[e] * scale), h = (q + 128) >> 8;
      high_word |= uint32_t(uint8_t(h)) << (8 * e);
      low_word |= uint32_t(uint8_t(q - h * 256)) << (8 * e);
      const float off = v[e] - float(q) * inv_scale;
      length += v[e] * v[e];
      error += off * off;
    }
    high[i] = high_word;
    low[i] = low_word;
  }
  length = warp_sum(length);
  error = warp_sum(error);
  if (lane == 0) sums[0][warp] = length, sums[1][warp] = error;
  __syncthreads();
  length = error = 0.0f;
  for (int i = 0; i < kThreads / 32; ++i) length += sums[0][i], error += sums[1][i];
  const float x_length = sqrtf(length) * kEnlarged, x_error = sqrtf(error) * kEnlarged + 1e-6f * x_length;
  const float slack = float(n_cols / 16 + 64) * 0x1p-24f;

  const int n_vectors = n_cols / 16;
  const int64_t n_rows = call.table.n_rows, stride = int64_t(gridDim.x) * (kThreads / 32) * kRowsAtOnce;
  float floor = -INFINITY;
  for (int64_t row = (int64_t(blockIdx.x) * (kThreads / 32) + warp) * kRowsAtOnce; row < n_rows; row += stride) {
    int highs[kRowsAtOnce] = {}, lows[kRowsAtOnce] = {};
#pragma unroll 5
    for (int j = lane; j < n_vectors; j += 32) {
      const uint4 h = reinterpret_cast<const uint4*>(high)[j], l = reinterpret_cast<const uint4*>(low)[j];
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        const int64_t at = row + r < n_rows ? row + r : row;
        const uint4 w = __ldg(reinterpret_cast<const uint4*>(call.sketch.codes + at * n_cols) + j);
        highs[r] = dp4a_s8(w.w, h.w, dp4a_s8(w.z, h.z, dp4a_s8(w.y, h.y, dp4a_s8(w.x, h.x, highs[r]))));
        lows[r] = dp4a_s8(w.w, l.w, dp4a_s8(w.z, l.z, dp4a_s8(w.y, l.y, dp4a_s8(w.x, l.x, lows[r]))));
      }
    }
    float product = 0.0f;
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int h = __reduce_add_sync(kFullWarp, highs[r]), l = __reduce_add_sync(kFullWarp, lows[r]);
      if (lane == r) product = 256.0f * float(h) + float(l);
    }
    if (lane < kRowsAtOnce && row + lane < n_rows) {
      const int64_t at = row + lane;
      const float about = (product * inv_scale) * call.sketch.steps[at];
      const float bound =
          (call.sketch.errors[at] * (x_length + x_error) + call.sketch.lengths[at] * (x_error + slack * x_length)) *
          kEnlarged;
      call.logits[at] = about + bound;
      floor = fmaxf(floor, about - bound);
    }
  }
  floor = block_max(floor, shared);
  if (tid == 0) atomicMax(&call.control->floor, order(floor));
}

__global__ void __launch_bounds__(kThreads) choose_kernel(const __grid_constant__ TokenHead call) {
  extern __shared__ __align__(16) float memory[];
  const int n_cols = int(call.table.n_cols), tid = int(threadIdx.x), lane = tid % 32;
  float* const x = memory;
  uint8_t* const row_bytes = reinterpret_cast<uint8_t*>(memory + n_cols) + tid / 32 * call.table.row_bytes;
  launch_dependents();
  wait_for_dependencies();
  for (int i = tid; i < n_cols / 4; i += kThreads) reinterpret_cast<float4*>(x)[i] = load4(call.normed + 4 * i);
  __syncthreads();
  const float floor = unordered(*const_cast<const volatile unsigned*>(&call.control->floor));
  const int64_t n_rows = call.table.n_rows, stride = int64_t(gridDim.x) * kThreads;
  unsigned long long best = 0;
  for (int64_t first = int64_t(blockIdx.x) * kThreads + tid / 32 * 32; first < n_rows; first += stride) {
    bool candidate = false;  // NaN is one
    if (first + lane < n_rows) candidate = !(load1(call.logits + first + lane) < floor);
    for (unsigned left = __ballot_sync(kFullWarp, candidate); left != 0; left &= left - 1) {
      const int64_t row = first + __ffs(int(left)) - 1;
      const uint4* const from = reinterpret_cast<const uint4*>(call.table.data + row * call.table.row_bytes);
#pragma unroll 10
      for (int j = lane; j < call.table.row_bytes / 16; j += 32)
        reinterpret_cast<uint4*>(row_bytes)[j] = __ldg(from + j);
      __syncwarp();
      float sum = 0.0f;
#pragma unroll 8
      for (int i = lane % 16; i < n_cols; i += 16) sum += widen(call.table.type, row_bytes, i) * x[i];
      sum = sum_lanes(sum);
      const unsigned long long key = ordered_logit(sum, int(row));
      best = key > best ? key : best;
      __syncwarp();
    }
  }
  finish_best(call, best);
}

}  // namespace

void build_sketch(cudaStream_t stream, const FloatTable& table, int8_t* codes, float* steps, float* errors,
                  float* lengths) {
  build_kernel<<<unsigned((table.n_rows + 7) / 8), 256, 0, stream>>>(table, codes, steps, errors, lengths);
}

cudaError_t token_best(const Launcher& launcher, const TokenHead& call) {
  const size_t n_cols = size_t(call.table.n_cols), squares = squares_bytes(int(n_cols));
  const size_t bound_bytes = n_cols * 4 + (squares > 2 * n_cols ? squares : 2 * n_cols);
  const cudaError_t error = launch_kernel(launcher, dim3(unsigned(3 * launcher.n_multiprocessors)), dim3(kThreads),
                                          bound_bytes, bound_kernel, call);
  if (error != cudaSuccess) return error;
  return launch_kernel(launcher, dim3(unsigned(launcher.n_multiprocessors)), dim3(kThreads),
                       n_cols * 4 + kThreads / 32 * size_t(call.table.row_bytes), choose_kernel, call);
}

}  // namespace bitnet::cuda
