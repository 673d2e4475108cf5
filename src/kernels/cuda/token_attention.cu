#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"

// One token's attention (numerics.md 8 in its order), a block a query head.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kChunk = 64;  // positions whose values lie in shared memory together
constexpr int kStages = 8;
constexpr int kMaxHeadDim = 256;
constexpr size_t kMaxShared_bytes = 200 * 1024;

__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(float x) { return x; }
__device__ inline void from_float(float x, __half& out) { out = __float2half_rn(x); }
__device__ inline void from_float(float x, float& out) { out = x; }

// Rotates row [head_dim] in shared memory; n_pairs threads of the block take part. A barrier before and after.
__device__ inline void rotate(float* row, const Rope& rope, int position, int thread) {
  if (thread < 0 || thread >= rope.n_pairs) return;
  const float c = __ldg(rope.cos + int64_t(position) * rope.n_pairs + thread);
  const float s = __ldg(rope.sin + int64_t(position) * rope.n_pairs + thread);
  const float a = row[thread], b = row[thread + rope.n_pairs];
  row[thread] = a * c - b * s;
  row[thread + rope.n_pairs] = b * c + a * s;
}

// Eight consecutive values: lanes of a lane sum that follow each other.
template <class T>
struct Eight;
template <>
struct Eight<__half> {
  uint4 raw;
  __device__ void load(const __half* p) { raw = *reinterpret_cast<const uint4*>(p); }
  __device__ float at(int i) const {
    const uint32_t word = i < 2 ? raw.x : i < 4 ? raw.y : i < 6 ? raw.z : raw.w;
    return __half2float(__ushort_as_half((unsigned short)(i % 2 == 0 ? word & 0xffffu : word >> 16)));
  }
};
template <>
struct Eight<float> {
  float4 low, high;
  __device__ void load(const float* p) {
    low = reinterpret_cast<const float4*>(p)[0];
    high = reinterpret_cast<const float4*>(p)[1];
  }
  __device__ float at(int i) const {
    const float4& v = i < 4 ? low : high;
    return i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) token_attention_kernel(const __grid_constant__ TokenAttention call) {
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ __align__(16) float q[kMaxHeadDim], new_k[kMaxHeadDim];
  __shared__ __align__(16) T new_key[kMaxHeadDim], new_value[kMaxHeadDim];
  __shared__ float shared[kThreads / 32];
  __shared__ float shared_inverse;
  const Cache& cache = call.cache;
  const int tid = int(threadIdx.x), d = int(cache.head_dim), head = int(blockIdx.x);
  const int heads_per_kv = call.n_heads / int(cache.n_kv_heads), kv_head = head / heads_per_kv;
  const int position = call.control->position, n_seen = position + 1;
  const int64_t plane = int64_t(kv_head) * cache.n_ctx * d;
  const T* const keys = reinterpret_cast<const T*>(cache.k) + plane;
  T* const values = reinterpret_cast<T*>(cache.v) + plane;
  T* const stages = reinterpret_cast<T*>(memory);  // [kStages, kChunk, d]
  float* const scores = reinterpret_cast<float*>(memory + size_t(kStages) * kChunk * d * sizeof(T));
  const int n_chunks = (n_seen + kChunk - 1) / kChunk;

  // Rows before this token's; its own row comes from new_value.
  const auto fetch = [&](int chunk) {
    if (chunk < n_chunks) {
      constexpr int kPer16 = 16 / int(sizeof(T));
      const int first = chunk * kChunk, n = min(kChunk, position - first) * d / kPer16;
      T* const to = stages + chunk % kStages * kChunk * d;
      for (int i = tid; i < n; i += kThreads) async_copy16(to + i * kPer16, values + int64_t(first) * d + i * kPer16);
    }
    async_commit();
  };
  for (int chunk = 0; chunk < kStages - 1; ++chunk) fetch(chunk);
  for (int64_t i = tid * 128; i < int64_t(position) * d * int64_t(sizeof(T)); i += kThreads * 128) {
    prefetch(reinterpret_cast<const uint8_t*>(keys) + i);
  }
  launch_dependents();
  wait_for_dependencies();

  if (tid < d) {
    q[tid] = load1(call.q + head * d + tid);
    new_k[tid] = load1(call.k + kv_head * d + tid);
    from_float(load1(call.v + kv_head * d + tid), new_value[tid]);
  }
  __syncthreads();
  rotate(q, call.rope, position, tid);
  rotate(new_k, call.rope, position, tid - 128);
  __syncthreads();
  if (tid < d) {
    from_float(new_k[tid], new_key[tid]);
    if (head % heads_per_kv == 0) {
      reinterpret_cast<T*>(cache.k)[plane + int64_t(position) * d + tid] = new_key[tid];
      values[int64_t(position) * d + tid] = new_value[tid];
    }
  }
  __syncthreads();

  // Two threads a score: one has lanes 0 to 7 of the lane sum, the other lanes 8 to 15.
  const float scale = 1.0f / sqrtf(float(d));
  const int half = tid % 2;
  float largest = -INFINITY;
  for (int first = 0; first < n_seen; first += kThreads / 2) {
    const int p = first + tid / 2;
    float lanes[8] = {};
    if (p < n_seen) {
      const T* const key = p == position ? new_key : keys + int64_t(p) * d;
      // Loads together, then sums in order.
      constexpr int kTogether = 8;
      for (int base = half * 8; base < d; base += 16 * kTogether) {
        Eight<T> k[kTogether];
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
          if (base + 16 * j < d) k[j].load(key + base + 16 * j);
        }
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
          if (base + 16 * j >= d) break;
          Eight<float> qs;
          qs.load(q + base + 16 * j);
#pragma unroll
          for (int e = 0; e < 8; ++e) lanes[e] += k[j].at(e) * qs.at(e);
        }
      }
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) lanes[e] += __shfl_down_sync(kFullWarp, lanes[e], 1);
#pragma unroll
    for (int step = 4; step > 0; step /= 2) {
      for (int e = 0; e < step; ++e) lanes[e] += lanes[e + step];
    }
    const float score = lanes[0] * scale;
    if (p < n_seen && half == 0) {
      scores[p] = score;
      largest = spec_max(score, largest);
    }
  }
  const float m = block_max(largest, shared);
  for (int p = tid; p < n_seen; p += kThreads) scores[p] = spec_exp(scores[p] - m);
  __syncthreads();
  if (tid >= kThreads - 32) {
    float lane = 0.0f;
#pragma unroll 4
    for (int p = tid % 16; p < n_seen; p += 16) lane += scores[p];
    lane = fold_lanes(lane);
    if (tid == kThreads - 32) shared_inverse = 1.0f / lane;
  }

  float sum = 0.0f;
  for (int chunk = 0; chunk < n_chunks; ++chunk) {
    async_wait<kStages - 2>();
    T* const there = stages + chunk % kStages * kChunk * d;
    if (chunk == position / kChunk && tid < d) there[position % kChunk * d + tid] = new_value[tid];
    __syncthreads();
    fetch(chunk + kStages - 1);
    if (tid < d) {
      const int n = min(kChunk, n_seen - chunk * kChunk);
      const float* const e = scores + chunk * kChunk;
      int p = 0;
      for (; p + 16 <= n; p += 16) {
        float terms[16];
#pragma unroll
        for (int j = 0; j < 16; ++j) terms[j] = e[p + j] * to_float(there[(p + j) * d + tid]);
#pragma unroll
        for (int j = 0; j < 16; ++j) sum += terms[j];
      }
      for (; p < n; ++p) sum += e[p] * to_float(there[p * d + tid]);
    }
  }
  __syncthreads();
  if (tid < d) call.out[head * d + tid] = sum * shared_inverse;
}

template <class T>
cudaError_t launch(const Launcher& launcher, const TokenAttention& call) {
  const size_t n_bytes = token_attention_bytes(call.cache);
  return launch_kernel(launcher, dim3(unsigned(call.n_heads)), dim3(kThreads), n_bytes, token_attention_kernel<T>,
                       call);
}

}  // namespace

size_t token_attention_bytes(const Cache& cache) {
  return size_t(kStages * kChunk * cache.row_bytes) + size_t(cache.n_ctx + 16) * sizeof(float);
}

bool token_attention_takes(const Cache& cache, const Rope& rope) {
  return (cache.type == TableType::kF16 || cache.type == TableType::kF32) && cache.head_dim % 16 == 0 &&
         cache.head_dim <= kMaxHeadDim && rope.n_pairs <= 128 && token_attention_bytes(cache) <= kMaxShared_bytes;
}

cudaError_t token_attention(const Launcher& launcher, const TokenAttention& call) {
  return call.cache.type == TableType::kF16 ? launch<__half>(launcher, call) : launch<float>(launcher, call);
}

}  // namespace bitnet::cuda
