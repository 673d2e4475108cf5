#include "train/cuda/train_kernels.h"
#include "train/cuda/values.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 1024;

// A block has a row. Largest value and sum of exponentials in one pass, each thread for itself, joined afterwards.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(T* logits, int n_cols, const int32_t* targets, float factor, bool backward, float* losses) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  T* const x = logits + row * n_cols;
  const int target = targets[row];
  float v[V];
  if (target < 0) {
    if (threadIdx.x == 0) losses[row] = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = 0;
    for (int col = int(threadIdx.x) * V; backward && col < n_cols; col += kThreads * V) store<V>(x + col, v);
    return;
  }
  float top = -INFINITY, sum = 0;
  for (int col = int(threadIdx.x) * V; col < n_cols; col += kThreads * V) {
    load<V>(x + col, v);
    float larger = top;
#pragma unroll
    for (int i = 0; i < V; ++i) larger = fmaxf(larger, v[i]);
    if (larger == -INFINITY) continue;
    sum *= __expf(top - larger);
#pragma unroll
    for (int i = 0; i < V; ++i) sum += __expf(v[i] - larger);
    top = larger;
  }
  const float all_top = block_join<MaxOf>(top, shared);
  const float z = block_join<SumOf>(top == -INFINITY ? 0.0f : sum * __expf(top - all_top), shared);
  if (threadIdx.x == 0) losses[row] = logf(z) - (float(x[target]) - all_top);
  if (!backward) return;
  __syncthreads();  // the target's logit is read
  const float inverse = factor / z;
  for (int col = int(threadIdx.x) * V; col < n_cols; col += kThreads * V) {
    load<V>(x + col, v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      v[i] = __expf(v[i] - all_top) * inverse;
      if (col + i == target) v[i] -= factor;
    }
    store<V>(x + col, v);
  }
}

__global__ void add_up_kernel(const float* x, int64_t n, double* total) {
  __shared__ double shared[32];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += double(x[i]);
  sum = block_join<SumOf>(sum, shared);
  if (threadIdx.x == 0) *total += sum;
}

__global__ void square_parts_kernel(const float* x, int64_t n, double* parts) {
  __shared__ double shared[32];
  const int64_t stride = int64_t(kSquareParts) * kThreads * 4;
  double sum = 0;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 4; i < n; i += stride) {
    float v[4] = {};
    if (i + 4 <= n) {
      load<4>(x + i, v);
    } else {
      for (int j = 0; i + j < n; ++j) v[j] = x[i + j];
    }
    sum += double(v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3]);
  }
  sum = block_join<SumOf>(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
__global__ void join_parts_kernel(const double* parts, double* total) {
  __shared__ double shared[32];
  const double sum = block_join<SumOf>(parts[threadIdx.x], shared);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

void cross_entropy(cudaStream_t stream, Precision precision, void* logits, int n_rows, int n_cols,
                   const int32_t* targets, float factor, bool backward, float* losses) {
  const auto launch = [&]<class T>(T* x) {
    if (n_cols % 4 == 0) {
      cross_entropy_kernel<T, 4><<<n_rows, kThreads, 0, stream>>>(x, n_cols, targets, factor, backward, losses);
    } else {
      cross_entropy_kernel<T, 1><<<n_rows, kThreads, 0, stream>>>(x, n_cols, targets, factor, backward, losses);
    }
  };
  precision == Precision::kBf16 ? launch(static_cast<Bf16*>(logits)) : launch(static_cast<float*>(logits));
}

void add_up(cudaStream_t stream, const float* x, int64_t n, double* total) {
  add_up_kernel<<<1, kThreads, 0, stream>>>(x, n, total);
}

void sum_squares(cudaStream_t stream, const float* x, int64_t n, double* scratch, double* total) {
  static_assert(kSquareParts == kThreads);
  square_parts_kernel<<<kSquareParts, kThreads, 0, stream>>>(x, n, scratch);
  join_parts_kernel<<<1, kThreads, 0, stream>>>(scratch, total);
}

}  // namespace bitnet::cuda
