#include "kernels/cuda/head_bounds.cuh"

// The floor that decides which rows of a head are computed exactly, where several of the best are wanted: the n_best-th
// largest lower bound, and then better.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostSketchWarps = 8192;

__device__ inline int64_t wanted_of(const TokenHead& call, int64_t n_best) {
  return call.draw == nullptr ? n_best : *const_cast<const volatile int32_t*>(&call.draw->sampling.top_k);
}

// The floor becomes the n_best-th largest of the n_warps warps' greatest lower bounds, bit by bit, by one block.
__global__ void __launch_bounds__(1024)
    warp_floor_kernel(const __grid_constant__ TokenHead call, int64_t n_best, int n_warps) {
  constexpr int kBounds = kMostSketchWarps / 1024;  // of a thread
  const int tid = int(threadIdx.x);
  launch_dependents();
  wait_for_dependencies();
  const int64_t wanted = wanted_of(call, n_best);
  unsigned bounds[kBounds], found = 0;
#pragma unroll
  for (int i = 0; i < kBounds; ++i) {
    const int at = tid + i * 1024;
    bounds[i] = at < n_warps ? ordered(load1(call.floors + at)) : 0;
  }
  for (unsigned bit = 1u << 31; bit != 0; bit >>= 1) {
    int n = 0;
#pragma unroll
    for (int i = 0; i < kBounds; ++i) {
      if (i * 1024 < n_warps) n += __syncthreads_count(bounds[i] >= (found | bit));
    }
    if (n >= wanted) found |= bit;
  }
  if (tid == 0) call.rows[0].floor = static_cast<unsigned long long>(found) << 32;
}

// The same among all rows' lower bounds, eight bits at a time.
__global__ void __launch_bounds__(1024) nth_floor_kernel(const __grid_constant__ TokenHead call, int64_t n_best) {
  __shared__ unsigned counts[256];
  __shared__ unsigned shared_prefix;
  __shared__ int64_t shared_left;
  const int tid = int(threadIdx.x);
  wait_for_dependencies();
  const HeadRow& row = call.rows[0];
  const HeadInput x = {load1(&row.inv_scale), load1(&row.length), load1(&row.error), slack_of(int(call.table.n_cols))};
  if (tid == 0) shared_prefix = 0, shared_left = n_best;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (tid < 256) counts[tid] = 0;
    __syncthreads();
    const unsigned prefix = shared_prefix;
    for (int64_t i = tid; i < call.table.n_rows; i += 1024) {
      const unsigned bits = ordered(lower_bound(call.sketch, i, x, load1(call.logits + i)));
      if (shift == 24 || bits >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(&counts[bits >> shift & 255u], 1u);
    }
    __syncthreads();
    if (tid == 0) {
      int64_t left = shared_left;
      int digit = 255;
      for (; digit > 0 && int64_t(counts[digit]) < left; --digit) left -= counts[digit];
      shared_prefix = prefix | unsigned(digit) << shift;
      shared_left = left;
    }
    __syncthreads();
  }
  if (tid == 0) {
    call.rows[0].floor = n_best < call.table.n_rows ? static_cast<unsigned long long>(shared_prefix) << 32 : 0;
  }
}

// Raises one token's floor: at least n_best rows have a lower bound that reaches it, and the least of their exact
// products is a better floor than the least of their bounds. Far fewer rows have to be read then.
__global__ void __launch_bounds__(kThreads) raise_floor_kernel(const __grid_constant__ TokenHead call) {
  extern __shared__ __align__(16) float memory[];
  const int n_cols = int(call.table.n_cols), tid = int(threadIdx.x), lane = tid % 32, n_threads = int(blockDim.x);
  float* const x = memory;
  float* const products = memory + n_cols + tid / 32 * n_cols;
  launch_dependents();
  wait_for_dependencies();
  for (int i = tid; i < n_cols / 4; i += n_threads) {
    reinterpret_cast<float4*>(x)[i] = load4(call.normed + 4 * i);
  }
  __syncthreads();
  HeadRow* const state = call.rows;
  const float floor = floor_of(*const_cast<const volatile unsigned long long*>(&state->floor));
  const HeadInput input = {load1(&state->inv_scale), load1(&state->length), load1(&state->error), slack_of(n_cols)};
  if (floor == -INFINITY) return;  // nothing is known of most rows
  const int64_t n_rows = call.table.n_rows, stride = int64_t(gridDim.x) * n_threads;
  unsigned lowest = 0;
  for (int64_t first = int64_t(blockIdx.x) * n_threads + tid / 32 * 32; first < n_rows; first += stride) {
    const int64_t mine = first + lane;
    const float most = mine < n_rows ? load1(call.logits + mine) : -INFINITY;
    const bool reaches = most >= floor && mine < n_rows && lower_bound(call.sketch, mine, input, most) >= floor;
    for (unsigned left = __ballot_sync(kFullWarp, reaches); left != 0; left &= left - 1) {
      const float product = exact_product(call.table, first + __ffs(int(left)) - 1, x, products, lane);
      lowest = max(lowest, ~ordered(product));
    }
  }
  if (lane == 0 && lowest != 0) atomicMax(&state->inverted_floor, lowest);
}

}  // namespace

cudaError_t raise_floor(const Launcher& launcher, const TokenHead& call, int64_t n_best) {
  // A warp has several rows; few of the best share one. Nearly as many as there are warps would let in most rows.
  const int n_warps = sketch_warps(launcher);
  const bool by_warps =
      call.floors != nullptr && n_warps <= kMostSketchWarps && (call.draw != nullptr || 4 * n_best <= n_warps);
  const int64_t n_wanted = call.draw != nullptr ? kMaxDrawnFrom : n_best;
  const cudaError_t error =
      by_warps ? launch_kernel(launcher, dim3(1), dim3(1024), 0, warp_floor_kernel, call, n_best, n_warps)
               : launch_kernel(launcher, dim3(1), dim3(1024), 0, nth_floor_kernel, call, n_wanted);
  if (error != cudaSuccess) return error;
  const int n_product_warps = product_warps(call.table);
  return launch_kernel(launcher, dim3(unsigned(2 * launcher.n_multiprocessors)), dim3(unsigned(n_product_warps) * 32),
                       product_bytes(call.table, n_product_warps), raise_floor_kernel, call);
}

}  // namespace bitnet::cuda
