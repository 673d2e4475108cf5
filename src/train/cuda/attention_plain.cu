#include "train/cuda/train_kernels.h"
#include "train/cuda/values.cuh"

// Causal attention of any head_dim as plain loops, for float32 and for shapes that have no tiles; and what both kinds
// share. A block has one query, or one key, of a head; `scores` is shared memory for all positions.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 128;

// Scores are read four at a time where the compiler sees fit.
__host__ __device__ inline int padded(int n_positions) { return (n_positions + 3) / 4 * 4; }

template <class T>
struct Heads {
  const T* qkv;
  HeadsShape s;
  __device__ int kv_head(int head) const { return head / (s.n_heads / s.n_kv_heads); }
  __device__ const T* q(int64_t token, int head) const { return qkv + token * s.qkv_cols() + head * s.head_dim; }
  __device__ const T* k(int64_t token, int kv) const { return q(token, s.n_heads + kv); }
  __device__ const T* v(int64_t token, int kv) const { return q(token, s.n_heads + s.n_kv_heads + kv); }
};

template <class A, class B>
__device__ inline float dot(const A* a, const B* b, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += float(a[i]) * float(b[i]);
  return sum;
}

// lse: the natural logarithm of the sum of e^score.
template <class T>
__global__ void plain_attention_kernel(Heads<T> heads, float scale, T* out, float* lse) {
  extern __shared__ float scores[];
  __shared__ float shared[32];
  const HeadsShape& s = heads.s;
  const int query = int(blockIdx.x), head = int(blockIdx.y), kv = heads.kv_head(head);
  const int64_t first = int64_t(blockIdx.z) * s.n_positions, token = first + query;
  float top = -INFINITY, sum = 0;
  for (int j = int(threadIdx.x); j <= query; j += kThreads) {
    scores[j] = dot(heads.q(token, head), heads.k(first + j, kv), s.head_dim) * scale;
    top = fmaxf(top, scores[j]);
  }
  top = block_join<MaxOf>(top, shared);
  for (int j = int(threadIdx.x); j <= query; j += kThreads) sum += scores[j] = expf(scores[j] - top);
  sum = block_join<SumOf>(sum, shared);
  __syncthreads();
  for (int i = int(threadIdx.x); i < s.head_dim; i += kThreads) {
    float o = 0;
    for (int j = 0; j <= query; ++j) o += scores[j] * float(heads.v(first + j, kv)[i]);
    out[token * s.q_cols() + head * s.head_dim + i] = T(o / sum);
  }
  if (threadIdx.x == 0) lse[int64_t(head) * s.n_tokens() + token] = top + logf(sum);
}

template <class T>
__global__ void plain_queries_backward_kernel(Heads<T> heads, float scale, const T* dout, const float* lse,
                                              const float* sums, T* d_qkv) {
  extern __shared__ float scores[];
  const HeadsShape& s = heads.s;
  const int query = int(blockIdx.x), head = int(blockIdx.y), kv = heads.kv_head(head);
  const int64_t first = int64_t(blockIdx.z) * s.n_positions, token = first + query;
  const int64_t value = int64_t(head) * s.n_tokens() + token;
  const T* const g = dout + token * s.q_cols() + head * s.head_dim;
  for (int j = int(threadIdx.x); j <= query; j += kThreads) {
    const float p = expf(dot(heads.q(token, head), heads.k(first + j, kv), s.head_dim) * scale - lse[value]);
    scores[j] = p * (dot(g, heads.v(first + j, kv), s.head_dim) - sums[value]) * scale;
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < s.head_dim; i += kThreads) {
    float d = 0;
    for (int j = 0; j <= query; ++j) d += scores[j] * float(heads.k(first + j, kv)[i]);
    d_qkv[token * s.qkv_cols() + head * s.head_dim + i] = T(d);
  }
}

template <class T>
__global__ void plain_keys_backward_kernel(Heads<T> heads, float scale, const T* dout, const float* lse,
                                           const float* sums, T* d_qkv) {
  extern __shared__ float scores[];
  const HeadsShape& s = heads.s;
  float* const probabilities = scores + padded(s.n_positions);
  const int key = int(blockIdx.x), kv = int(blockIdx.y), group = s.n_heads / s.n_kv_heads;
  const int64_t first = int64_t(blockIdx.z) * s.n_positions, token = first + key;
  T* const dk = d_qkv + token * s.qkv_cols() + s.q_cols() + kv * s.head_dim;
  T* const dv = dk + s.kv_cols();
  // The thread's own dimensions are kept between heads.
  constexpr int kMost = 8;
  float sum_k[kMost] = {}, sum_v[kMost] = {};
  for (int head = kv * group; head < (kv + 1) * group; ++head) {
    __syncthreads();
    for (int t = key + int(threadIdx.x); t < s.n_positions; t += kThreads) {
      const int64_t value = int64_t(head) * s.n_tokens() + first + t;
      const T* const g = dout + (first + t) * s.q_cols() + head * s.head_dim;
      const float p = expf(dot(heads.q(first + t, head), heads.k(token, kv), s.head_dim) * scale - lse[value]);
      probabilities[t] = p;
      scores[t] = p * (dot(g, heads.v(token, kv), s.head_dim) - sums[value]) * scale;
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kMost; ++c) {
      const int i = int(threadIdx.x) + c * kThreads;
      if (i >= s.head_dim) continue;
      for (int t = key; t < s.n_positions; ++t) {
        sum_k[c] += scores[t] * float(heads.q(first + t, head)[i]);
        sum_v[c] += probabilities[t] * float(dout[(first + t) * s.q_cols() + head * s.head_dim + i]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kMost; ++c) {
    const int i = int(threadIdx.x) + c * kThreads;
    if (i >= s.head_dim) continue;
    dk[i] = T(sum_k[c]);
    dv[i] = T(sum_v[c]);
  }
}

// sums[head][token] = the product of a head's output with its gradient. n_lanes threads have a head, V values each.
template <class T, int V>
__global__ void output_sums_kernel(const T* out, const T* dout, HeadsShape s, int n_lanes, float* sums) {
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t token = first / (s.n_heads * n_lanes);
  const int head = int(first / n_lanes % s.n_heads), lane = int(first % n_lanes);
  const bool there = token < s.n_tokens();
  const int64_t at = (there ? token : 0) * s.q_cols() + head * s.head_dim;
  float sum = 0;
  for (int i = lane * V; i < s.head_dim; i += n_lanes * V) {
    float x[V], g[V];
    load<V>(out + at + i, x);
    load<V>(dout + at + i, g);
#pragma unroll
    for (int e = 0; e < V; ++e) sum += x[e] * g[e];
  }
  for (int step = n_lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (there && lane == 0) sums[int64_t(head) * s.n_tokens() + token] = sum;
}

template <class T>
void launch_output_sums(cudaStream_t stream, const void* out, const void* dout, const HeadsShape& s, float* sums) {
  const int n_lanes = s.head_dim % 64 == 0 ? 16 : 4;  // a power of two
  const int64_t n_threads = int64_t{s.n_tokens()} * s.n_heads * n_lanes;
  const unsigned n_blocks = unsigned((n_threads + kThreads - 1) / kThreads);
  const T *const x = static_cast<const T*>(out), *const g = static_cast<const T*>(dout);
  if (s.head_dim % 4 == 0) {
    output_sums_kernel<T, 4><<<n_blocks, kThreads, 0, stream>>>(x, g, s, n_lanes, sums);
  } else {
    output_sums_kernel<T, 1><<<n_blocks, kThreads, 0, stream>>>(x, g, s, n_lanes, sums);
  }
}

template <class T>
void launch_plain(cudaStream_t stream, const void* qkv, const HeadsShape& s, void* out, float* lse) {
  const size_t bytes = size_t(padded(s.n_positions)) * sizeof(float);
  (void)cudaFuncSetAttribute(plain_attention_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  const dim3 grid(unsigned(s.n_positions), unsigned(s.n_heads), unsigned(s.n_sequences));
  plain_attention_kernel<T><<<grid, kThreads, bytes, stream>>>(
      {static_cast<const T*>(qkv), s}, 1.0f / sqrtf(float(s.head_dim)), static_cast<T*>(out), lse);
}

template <class T>
void launch_plain_backward(cudaStream_t stream, const void* qkv, const float* lse, const void* dout,
                           const HeadsShape& s, const float* sums, void* d_qkv) {
  const Heads<T> heads{static_cast<const T*>(qkv), s};
  const size_t bytes = size_t(padded(s.n_positions)) * sizeof(float);
  const float scale = 1.0f / sqrtf(float(s.head_dim));
  (void)cudaFuncSetAttribute(plain_queries_backward_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  (void)cudaFuncSetAttribute(plain_keys_backward_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int(2 * bytes));
  plain_queries_backward_kernel<T>
      <<<dim3(unsigned(s.n_positions), unsigned(s.n_heads), unsigned(s.n_sequences)), kThreads, bytes, stream>>>(
          heads, scale, static_cast<const T*>(dout), lse, sums, static_cast<T*>(d_qkv));
  plain_keys_backward_kernel<T>
      <<<dim3(unsigned(s.n_positions), unsigned(s.n_kv_heads), unsigned(s.n_sequences)), kThreads, 2 * bytes, stream>>>(
          heads, scale, static_cast<const T*>(dout), lse, sums, static_cast<T*>(d_qkv));
}

}  // namespace

void attention(cudaStream_t stream, Precision precision, const void* qkv, const HeadsShape& s, void* out, float* lse) {
  if (has_tiles(precision, s.head_dim)) return attention_tiles(stream, qkv, s, out, lse);
  precision == Precision::kBf16 ? launch_plain<Bf16>(stream, qkv, s, out, lse)
                                : launch_plain<float>(stream, qkv, s, out, lse);
}

void attention_backward(cudaStream_t stream, Precision precision, const void* qkv, const void* out, const float* lse,
                        const void* dout, const HeadsShape& s, float* sums, void* d_qkv) {
  if (precision == Precision::kFloat32) {
    launch_output_sums<float>(stream, out, dout, s, sums);
    return launch_plain_backward<float>(stream, qkv, lse, dout, s, sums, d_qkv);
  }
  launch_output_sums<Bf16>(stream, out, dout, s, sums);
  if (has_tiles(precision, s.head_dim)) {
    return attention_tiles_backward(stream, qkv, lse, dout, s, sums, d_qkv);
  }
  launch_plain_backward<Bf16>(stream, qkv, lse, dout, s, sums, d_qkv);
}

}  // namespace bitnet::cuda
