#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/half_math.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"

namespace bitnet::cuda {
namespace {

constexpr int kRopeThreads = 256;

// What the attention kernel multiplies scores by is in the queries already.
__device__ inline float query_scale(int head_dim) { return 1.44269504f / sqrtf(float(head_dim)); }

// Any number of rotated pairs, one value at a time.
__global__ void __launch_bounds__(kRopeThreads) prompt_rope_kernel(const __grid_constant__ PromptRope call) {
  launch_dependents();
  wait_for_dependencies();
  const int d = int(call.cache.head_dim), n_pairs = int(call.rope.n_pairs), token = int(blockIdx.x);
  const int position = call.first_position + token, n_kv_heads = int(call.cache.n_kv_heads);
  const float* const cos = call.rope.cos + int64_t(position) * n_pairs;
  const float* const sin = call.rope.sin + int64_t(position) * n_pairs;
  const float scale = query_scale(d);
  const auto rotated = [&](const float* head, int i) {
    if (i < n_pairs) return head[i] * cos[i] - head[i + n_pairs] * sin[i];
    if (i < 2 * n_pairs) return head[i] * cos[i - n_pairs] + head[i - n_pairs] * sin[i - n_pairs];
    return head[i];
  };
  const int64_t q_cols = int64_t(call.n_heads) * d, kv_cols = int64_t(n_kv_heads) * d;
  for (int i = int(threadIdx.x); i < q_cols; i += kRopeThreads) {
    call.q_out[token * q_cols + i] = __float2half_rn(rotated(call.q + token * q_cols + i / d * d, i % d) * scale);
  }
  for (int i = int(threadIdx.x); i < kv_cols; i += kRopeThreads) {
    const int64_t at = cache_row(call.cache, i / d, position) * d + i % d;
    reinterpret_cast<__half*>(call.cache.k)[at] = __float2half_rn(rotated(call.k + token * kv_cols + i / d * d, i % d));
    reinterpret_cast<__half*>(call.cache.v)[at] = __float2half_rn(call.v[token * kv_cols + i]);
  }
}

// Whole heads of kDim values: a thread takes four pairs of one head.
template <int kDim>
__global__ void __launch_bounds__(kRopeThreads) whole_rope_kernel(const __grid_constant__ PromptRope call) {
  constexpr int kHalf = kDim / 2, kFours = kHalf / 4;
  const int token = int(blockIdx.y), n_kv_heads = int(call.cache.n_kv_heads), i = int(threadIdx.x) % kFours * 4;
  const int head = (int(blockIdx.x) * kRopeThreads + int(threadIdx.x)) / kFours;  // of q, then of k, then of v
  const int position = call.first_position + token;
  const int64_t angle = int64_t(position) * kHalf + i;
  if (head >= call.n_heads + 2 * n_kv_heads) return;
  const bool query = head < call.n_heads, key = !query && head < call.n_heads + n_kv_heads;
  const int kv_head = head - call.n_heads - (key ? 0 : n_kv_heads);
  const float4 cos = __ldg(reinterpret_cast<const float4*>(call.rope.cos + angle));
  const float4 sin = __ldg(reinterpret_cast<const float4*>(call.rope.sin + angle));
  const float* from = call.q + (int64_t(token) * call.n_heads + head) * kDim;
  __half* to = call.q_out + (int64_t(token) * call.n_heads + head) * kDim;
  if (!query) {
    from = (key ? call.k : call.v) + (int64_t(token) * n_kv_heads + kv_head) * kDim;
    to = reinterpret_cast<__half*>(key ? call.cache.k : call.cache.v) + cache_row(call.cache, kv_head, position) * kDim;
  }
  wait_for_dependencies();
  float4 a = load4(from + i), b = load4(from + i + kHalf);
  launch_dependents();
  if (query || key) {
    const float4 low = a, high = b;
    a = make_float4(low.x * cos.x - high.x * sin.x, low.y * cos.y - high.y * sin.y, low.z * cos.z - high.z * sin.z,
                    low.w * cos.w - high.w * sin.w);
    b = make_float4(high.x * cos.x + low.x * sin.x, high.y * cos.y + low.y * sin.y, high.z * cos.z + low.z * sin.z,
                    high.w * cos.w + low.w * sin.w);
  }
  const float scale = query ? query_scale(kDim) : 1.0f;
  const auto put = [&](const float4& x, __half* out) {
    const __half2 pairs[2] = {__floats2half2_rn(x.x * scale, x.y * scale), __floats2half2_rn(x.z * scale, x.w * scale)};
    *reinterpret_cast<uint2*>(out) = *reinterpret_cast<const uint2*>(pairs);
  };
  put(a, to + i);
  put(b, to + i + kHalf);
}

// Flash attention: a warp has 16 queries; the block's 64 queries share tiles of 64 keys and values in shared memory.
constexpr int kQueries = 64;
constexpr int kKeys = 64;
constexpr int kThreads = 128;

__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <bool kTransposed>
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}
template <int kDim>
__global__ void __launch_bounds__(kThreads) prompt_attention_kernel(const __grid_constant__ PromptAttention call) {
  extern __shared__ __align__(128) uint8_t memory[];
  constexpr int kRow_bytes = kDim * 2, kPieces = kRow_bytes / 16, kTile_bytes = kKeys * kRow_bytes;
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_blocks = int(gridDim.x), head = int(blockIdx.y);
  const int block = n_blocks - 1 - int(blockIdx.x);  // the longest first
  const int kv_head = head / (call.n_heads / int(call.cache.n_kv_heads)), first_token = block * kQueries;
  const int n_seen = call.first_position + min(first_token + kQueries, call.n_tokens);
  const __half* const keys = reinterpret_cast<const __half*>(call.cache.k);
  const __half* const values = reinterpret_cast<const __half*>(call.cache.v);
  // Pieces of 16 bytes stand at piece ^ (row & 7).
  const auto place = [](int row, int piece) { return uint32_t(row * kRow_bytes + ((piece ^ (row & 7)) << 4)); };
  const uint32_t base = shared_address(memory);
  launch_dependents();
  wait_for_dependencies();

  static_assert(kKeys == kPagePositions, "a tile of keys is a page");
  const auto fetch = [&](const __half* from, int first, uint8_t* to) {
    const __half* const page = from + cache_row(call.cache, kv_head, first) * kDim;
    for (int i = tid; i < kKeys * kPieces; i += kThreads) {
      const int row = i / kPieces, piece = i % kPieces;
      // Rows that nobody has seen repeat the last one: their products are masked.
      const int at = min(row, n_seen - 1 - first);
      async_copy16(to + place(row, piece), page + at * kDim + piece * 8);
    }
  };
  // Queries to shared memory, then to registers.
  for (int i = tid; i < kQueries * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces, token = min(first_token + row, call.n_tokens - 1);
    async_copy16(memory + place(row, piece), call.q + (int64_t(token) * call.n_heads + head) * kDim + piece * 8);
  }
  async_commit();
  async_wait<0>();
  __syncthreads();
  uint32_t q[kDim / 16][4];
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    load_matrices<false>(q[i], base + place(warp * 16 + lane % 16, i * 2 + lane / 16));
  }
  __syncthreads();
  // Two stages of keys and of values.
  uint8_t* const key_stages = memory;
  uint8_t* const value_stages = memory + 2 * kTile_bytes;
  const int n_tiles = (n_seen + kKeys - 1) / kKeys;
  fetch(keys, 0, key_stages);
  async_commit();
  fetch(values, 0, value_stages);
  async_commit();

  float out[kDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  const int query0 = call.first_position + first_token + warp * 16 + g;  // positions of rows g and g + 8
  for (int tile = 0; tile < n_tiles; ++tile) {
    const uint32_t key_at = base + uint32_t(tile % 2 * kTile_bytes);
    const uint32_t value_at = base + uint32_t((2 + tile % 2) * kTile_bytes);
    async_wait<1>();  // the keys; the values may be on their way
    __syncthreads();
    if (tile + 1 < n_tiles) fetch(keys, (tile + 1) * kKeys, key_stages + (tile + 1) % 2 * kTile_bytes);
    async_commit();
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kKeys / 16; ++j) {
        uint32_t b[4];
        load_matrices<false>(b, key_at + place(j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
        mma_f16(scores[2 * j], q[i], b[0], b[1]);
        mma_f16(scores[2 * j + 1], q[i], b[2], b[3]);
      }
    }
    if ((tile + 1) * kKeys > call.first_position + first_token + warp * 16 + 1) {
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (tile * kKeys + j * 8 + 2 * t + e % 2 > query0 + e / 2 * 8) scores[j][e] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float m = largest[half];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) m = fmaxf(m, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
      m = fmaxf(m, __shfl_xor_sync(kFullWarp, m, 1));
      m = fmaxf(m, __shfl_xor_sync(kFullWarp, m, 2));
      const float shrink = exp2_fast(largest[half] - m);
      largest[half] = m;
      sum[half] *= shrink;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[j][e] = exp2_fast(scores[j][e] - m);
          sum[half] += scores[j][e];
        }
      }
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        out[j][2 * half] *= shrink;
        out[j][2 * half + 1] *= shrink;
      }
    }
    async_wait<1>();  // the values; the next keys may be on their way
    __syncthreads();
    if (tile + 1 < n_tiles) fetch(values, (tile + 1) * kKeys, value_stages + (tile + 1) % 2 * kTile_bytes);
    async_commit();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const uint32_t p[4] = {
          half_pair(scores[2 * i][0], scores[2 * i][1]), half_pair(scores[2 * i][2], scores[2 * i][3]),
          half_pair(scores[2 * i + 1][0], scores[2 * i + 1][1]), half_pair(scores[2 * i + 1][2], scores[2 * i + 1][3])};
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) {
        uint32_t b[4];
        load_matrices<true>(b, value_at + place(i * 16 + lane % 16, j * 2 + lane / 16));
        mma_f16(out[2 * j], p, b[0], b[1]);
        mma_f16(out[2 * j + 1], p, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(kFullWarp, sum[half], 1);
    sum[half] += __shfl_xor_sync(kFullWarp, sum[half], 2);
    const float inverse = 1.0f / sum[half];
    const int token = first_token + warp * 16 + g + 8 * half;
    if (token >= call.n_tokens) continue;
    float* const to = call.out + (int64_t(token) * call.n_heads + head) * kDim;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      const float2 pair = make_float2(out[j][2 * half] * inverse, out[j][2 * half + 1] * inverse);
      *reinterpret_cast<float2*>(to + j * 8 + 2 * t) = pair;
    }
  }
}

}  // namespace

cudaError_t prompt_rope(const Launcher& launcher, const PromptRope& call) {
  const int d = int(call.cache.head_dim), n_heads = call.n_heads + 2 * int(call.cache.n_kv_heads);
  if (2 * call.rope.n_pairs == d && (d == 64 || d == 128)) {
    const int n_threads = n_heads * (d / 8);
    const dim3 grid(unsigned((n_threads + kRopeThreads - 1) / kRopeThreads), unsigned(call.n_tokens));
    return d == 64 ? launch_kernel(launcher, grid, dim3(kRopeThreads), 0, whole_rope_kernel<64>, call)
                   : launch_kernel(launcher, grid, dim3(kRopeThreads), 0, whole_rope_kernel<128>, call);
  }
  return launch_kernel(launcher, dim3(unsigned(call.n_tokens)), dim3(kRopeThreads), 0, prompt_rope_kernel, call);
}

bool prompt_attention_takes(const Cache& cache) {
  return cache.type == TableType::kF16 && (cache.head_dim == 64 || cache.head_dim == 128);
}

cudaError_t prompt_attention(const Launcher& launcher, const PromptAttention& call) {
  const dim3 grid(unsigned((call.n_tokens + kQueries - 1) / kQueries), unsigned(call.n_heads));
  const size_t n_bytes = size_t(4) * kKeys * size_t(call.cache.head_dim) * 2;
  return call.cache.head_dim == 128
             ? launch_kernel(launcher, grid, dim3(kThreads), n_bytes, prompt_attention_kernel<128>, call)
             : launch_kernel(launcher, grid, dim3(kThreads), n_bytes, prompt_attention_kernel<64>, call);
}

}  // namespace bitnet::cuda
