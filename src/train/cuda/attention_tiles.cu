#include "train/cuda/tile_math.cuh"

// Causal attention on tensor cores, forward and backward, as Dao 2023 ("FlashAttention-2"): probabilities are never
// stored, the backward pass computes them again from the logarithm of their sum. Sums of different blocks never meet:
// one kernel has the queries' gradients, another those of keys and values, so that every sum has one order.
namespace bitnet::cuda {
namespace {

constexpr int kKeys = 64;  // of a tile
constexpr float kLog2E = 1.44269504f;

__device__ inline float exp2_fast(float x) {
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
}
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Which part of which head a block has. Few blocks begin with the longest of all heads, so that they end together; many
// go head by head, whose rows then stay in the cache.
struct Place {
  int part, n_parts, head, sequence;
};
__device__ inline Place place_of(bool by_length) {
  if (by_length) return {int(blockIdx.z), int(gridDim.z), int(blockIdx.x), int(blockIdx.y)};
  return {int(blockIdx.x), int(gridDim.x), int(blockIdx.y), int(blockIdx.z)};
}
constexpr int64_t kManyBlocks = 4096;
struct Grid {
  Grid(int n_parts, int n_heads, int n_sequences)
      : by_length(int64_t{n_parts} * n_heads * n_sequences < kManyBlocks),
        size(by_length ? dim3(unsigned(n_heads), unsigned(n_sequences), unsigned(n_parts))
                       : dim3(unsigned(n_parts), unsigned(n_heads), unsigned(n_sequences))) {}
  bool by_length;
  dim3 size;
};

// Where a head's queries, keys and values begin for one sequence.
struct HeadRows {
  __device__ HeadRows(const void* qkv, const HeadsShape& s, int sequence, int head)
      : stride(s.qkv_cols()), kv_head(head / (s.n_heads / s.n_kv_heads)) {
    q = static_cast<const Bf16*>(qkv) + int64_t(sequence) * s.n_positions * stride + head * s.head_dim;
    k = q + (s.n_heads - head + kv_head) * s.head_dim;
    v = k + s.kv_cols();
  }
  int64_t stride;
  int kv_head;
  const Bf16 *q, *k, *v;
};

template <int D>
struct ForwardTiles {
  static constexpr int kWarps = 8, kThreads = 32 * kWarps, kQueries = 16 * kWarps;
  static constexpr int kTileBytes = kKeys * D * 2, kBytes = kQueries * D * 2 + 4 * kTileBytes;
};

// A block has kQueries queries of a head, a warp 16 of them. lse: the logarithm to base 2 of the sum of
// 2^(score log2 e).
template <int D>
__global__ void __launch_bounds__(ForwardTiles<D>::kThreads, D == 64 ? 2 : 1)
    attention_kernel(const void* qkv, HeadsShape s, bool by_length, float scale_log2, Bf16* out, float* lse) {
  const Place place = place_of(by_length);
  using Tiles = ForwardTiles<D>;
  extern __shared__ __align__(128) uint8_t memory[];
  const uint32_t q_tile = shared_address(memory), k_tiles = q_tile + Tiles::kQueries * D * 2,
                 v_tiles = k_tiles + 2 * Tiles::kTileBytes;
  const int n = s.n_positions, head = place.head, sequence = place.sequence;
  const int first_query = (place.n_parts - 1 - place.part) * Tiles::kQueries;  // the longest first
  const HeadRows rows(qkv, s, sequence, head);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int first_row = first_query + warp * 16, my_row = first_row + lane / 4;
  const int n_tiles = (min(first_query + Tiles::kQueries, n) + kKeys - 1) / kKeys;

  const auto load_keys = [&](int tile) {
    const uint32_t at = uint32_t(tile % 2 * Tiles::kTileBytes);
    load_tile<D, kKeys, Tiles::kThreads>(k_tiles + at, rows.k, rows.stride, tile * kKeys, n);
    load_tile<D, kKeys, Tiles::kThreads>(v_tiles + at, rows.v, rows.stride, tile * kKeys, n);
    copies_issued();
  };
  load_tile<D, Tiles::kQueries, Tiles::kThreads>(q_tile, rows.q, rows.stride, first_query, n);
  load_keys(0);

  uint32_t q[D / 16][4];
  float o[D / 8][4];
  clear(o);
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int tile = 0; tile < n_tiles; ++tile) {
    if (tile + 1 < n_tiles) {
      load_keys(tile + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    if (tile == 0) {
#pragma unroll
      for (int k = 0; k < D / 16; ++k) load_left<D>(q[k], q_tile, warp * 16, k);
    }
    const int first_key = tile * kKeys;
    if (first_key <= first_row + 15) {
      const uint32_t k_tile = k_tiles + uint32_t(tile % 2 * Tiles::kTileBytes);
      const uint32_t v_tile = v_tiles + uint32_t(tile % 2 * Tiles::kTileBytes);
      float p[kKeys / 8][4];
      clear(p);
#pragma unroll
      for (int k = 0; k < D / 16; ++k) {
#pragma unroll
        for (int j = 0; j < kKeys / 16; ++j) {
          uint32_t b[4];
          load_right<D>(b, k_tile, 16 * j, k);
          multiply(p[2 * j], q[k], b[0], b[1]);
          multiply(p[2 * j + 1], q[k], b[2], b[3]);
        }
      }
      if (first_key + kKeys - 1 > first_row) {
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            if (first_key + 8 * j + lane % 4 * 2 + e % 2 > my_row + e / 2 * 8) p[j][e] = -INFINITY;
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float larger = top[half];
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) larger = fmaxf(larger, fmaxf(p[j][2 * half], p[j][2 * half + 1]));
        larger = quad_max(larger);
        const float kept = exp2_fast((top[half] - larger) * scale_log2), offset = larger * scale_log2;
        top[half] = larger;
        float added = 0;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            p[j][e] = exp2_fast(p[j][e] * scale_log2 - offset);
            added += p[j][e];
          }
        }
        sum[half] = sum[half] * kept + added;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) o[j][2 * half] *= kept, o[j][2 * half + 1] *= kept;
      }
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) {
        uint32_t a[4];
        as_left(a, p[2 * k], p[2 * k + 1]);
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          uint32_t b[4];
          load_right_turned<D>(b, v_tile, 16 * k, j);
          multiply(o[2 * j], a, b[0], b[1]);
          multiply(o[2 * j + 1], a, b[2], b[3]);
        }
      }
    }
    __syncthreads();  // before the next but one is loaded over it
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = my_row + 8 * half;
    const float total = quad_sum(sum[half]), inverse = 1.0f / total;
    if (row >= n) continue;
    const int64_t token = int64_t(sequence) * n + row;
    Bf16* const to = out + token * s.q_cols() + head * D + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      *reinterpret_cast<uint32_t*>(to + 8 * j) = pack_bf16(o[j][2 * half] * inverse, o[j][2 * half + 1] * inverse);
    }
    if (lane % 4 == 0) lse[int64_t(head) * s.n_tokens() + token] = top[half] * scale_log2 + log2f(total);
  }
}

template <int D>
struct BackwardTiles {
  static constexpr int kThreads = 128;                // four warps of 16 rows
  static constexpr int kQueries = D == 64 ? 64 : 32;  // of a tile
  static constexpr int kTileBytes = kKeys * D * 2, kQueryBytes = kQueries * D * 2;
  static constexpr int kKeysBytes = 2 * kTileBytes + 4 * kQueryBytes + 4 * kQueries * 4;
  static constexpr int kQueriesBytes = 2 * kTileBytes + 4 * kTileBytes;
};

// dk and dv of 64 keys of a head: over all queries of its group that see them. Everything is turned: rows are keys.
template <int D>
__global__ void __launch_bounds__(BackwardTiles<D>::kThreads)
    keys_backward_kernel(const void* qkv, HeadsShape s, bool by_length, float scale, const Bf16* dout, const float* lse,
                         const float* sums, Bf16* d_qkv) {
  using Tiles = BackwardTiles<D>;
  const Place place = place_of(by_length);
  constexpr int kQueries = Tiles::kQueries;
  extern __shared__ __align__(128) uint8_t memory[];
  const uint32_t k_tile = shared_address(memory), v_tile = k_tile + Tiles::kTileBytes,
                 q_tiles = v_tile + Tiles::kTileBytes, g_tiles = q_tiles + 2 * Tiles::kQueryBytes;
  float* const row_values = reinterpret_cast<float*>(memory + 2 * Tiles::kTileBytes + 4 * Tiles::kQueryBytes);
  const int n = s.n_positions, kv_head = place.head, sequence = place.sequence;
  const int group = s.n_heads / s.n_kv_heads, first_key = place.part * kKeys;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int first_row = first_key + warp * 16;
  const float scale_log2 = scale * kLog2E;
  const HeadRows first_head(qkv, s, sequence, kv_head * group);
  const int first_tile = first_key / kQueries, n_tiles = (n + kQueries - 1) / kQueries - first_tile;
  const int n_rounds = group * n_tiles;

  const auto load_queries = [&](int round) {
    const int head = kv_head * group + round / n_tiles, first = (first_tile + round % n_tiles) * kQueries;
    const uint32_t at = uint32_t(round % 2 * Tiles::kQueryBytes);
    load_tile<D, kQueries, Tiles::kThreads>(q_tiles + at, first_head.q + round / n_tiles * D, first_head.stride, first,
                                            n);
    load_tile<D, kQueries, Tiles::kThreads>(g_tiles + at, dout + int64_t(sequence) * n * s.q_cols() + head * D,
                                            s.q_cols(), first, n);
    if (int(threadIdx.x) < kQueries) {
      const int row = first + int(threadIdx.x);
      const int64_t value = int64_t(head) * s.n_tokens() + int64_t(sequence) * n + min(row, n - 1);
      float* const to = row_values + round % 2 * 2 * kQueries + threadIdx.x;
      to[0] = row < n ? lse[value] : INFINITY;
      to[kQueries] = sums[value];
    }
    copies_issued();
  };
  load_tile<D, kKeys, Tiles::kThreads>(k_tile, first_head.k, first_head.stride, first_key, n);
  load_tile<D, kKeys, Tiles::kThreads>(v_tile, first_head.v, first_head.stride, first_key, n);
  load_queries(0);

  float dk[D / 8][4], dv[D / 8][4];
  clear(dk);
  clear(dv);
  for (int round = 0; round < n_rounds; ++round) {
    if (round + 1 < n_rounds) {
      load_queries(round + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const int first_query = (first_tile + round % n_tiles) * kQueries;
    const uint32_t q_tile = q_tiles + uint32_t(round % 2 * Tiles::kQueryBytes);
    const uint32_t g_tile = g_tiles + uint32_t(round % 2 * Tiles::kQueryBytes);
    const float* const row_lse = row_values + round % 2 * 2 * kQueries;
    const float* const row_sums = row_lse + kQueries;
    if (first_query + kQueries - 1 >= first_row) {
      float p[kQueries / 8][4], dp[kQueries / 8][4];
      clear(p);
      clear(dp);
#pragma unroll
      for (int k = 0; k < D / 16; ++k) {
        uint32_t a[4], c[4];
        load_left<D>(a, k_tile, warp * 16, k);
        load_left<D>(c, v_tile, warp * 16, k);
#pragma unroll
        for (int j = 0; j < kQueries / 16; ++j) {
          uint32_t b[4];
          load_right<D>(b, q_tile, 16 * j, k);
          multiply(p[2 * j], a, b[0], b[1]);
          multiply(p[2 * j + 1], a, b[2], b[3]);
          load_right<D>(b, g_tile, 16 * j, k);
          multiply(dp[2 * j], c, b[0], b[1]);
          multiply(dp[2 * j + 1], c, b[2], b[3]);
        }
      }
      const bool masked = first_query < first_row + 15;
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int query = 8 * j + lane % 4 * 2 + e % 2;
          float value = exp2_fast(p[j][e] * scale_log2 - row_lse[query]);
          if (masked && first_row + lane / 4 + e / 2 * 8 > first_query + query) value = 0;
          p[j][e] = value;
          dp[j][e] = value * (dp[j][e] - row_sums[query]) * scale;
        }
      }
#pragma unroll
      for (int k = 0; k < kQueries / 16; ++k) {
        uint32_t a[4], c[4];
        as_left(a, p[2 * k], p[2 * k + 1]);
        as_left(c, dp[2 * k], dp[2 * k + 1]);
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          uint32_t b[4];
          load_right_turned<D>(b, g_tile, 16 * k, j);
          multiply(dv[2 * j], a, b[0], b[1]);
          multiply(dv[2 * j + 1], a, b[2], b[3]);
          load_right_turned<D>(b, q_tile, 16 * k, j);
          multiply(dk[2 * j], c, b[0], b[1]);
          multiply(dk[2 * j + 1], c, b[2], b[3]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + lane / 4 + 8 * half;
    if (row >= n) continue;
    Bf16* const to = d_qkv + (int64_t(sequence) * n + row) * s.qkv_cols() + s.q_cols() + kv_head * D + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      *reinterpret_cast<uint32_t*>(to + 8 * j) = pack_bf16(dk[j][2 * half], dk[j][2 * half + 1]);
      *reinterpret_cast<uint32_t*>(to + s.kv_cols() + 8 * j) = pack_bf16(dv[j][2 * half], dv[j][2 * half + 1]);
    }
  }
}

// dq of 64 queries of a head.
template <int D>
__global__ void __launch_bounds__(BackwardTiles<D>::kThreads, D == 64 ? 3 : 1)
    queries_backward_kernel(const void* qkv, HeadsShape s, bool by_length, float scale, const Bf16* dout,
                            const float* lse, const float* sums, Bf16* d_qkv) {
  using Tiles = BackwardTiles<D>;
  const Place place = place_of(by_length);
  constexpr int kQueries = 64;
  extern __shared__ __align__(128) uint8_t memory[];
  const uint32_t q_tile = shared_address(memory), g_tile = q_tile + Tiles::kTileBytes,
                 k_tiles = g_tile + Tiles::kTileBytes, v_tiles = k_tiles + 2 * Tiles::kTileBytes;
  const int n = s.n_positions, head = place.head, sequence = place.sequence;
  const int first_query = (place.n_parts - 1 - place.part) * kQueries;
  const HeadRows rows(qkv, s, sequence, head);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int first_row = first_query + warp * 16, my_row = first_row + lane / 4;
  const int n_tiles = (min(first_query + kQueries, n) + kKeys - 1) / kKeys;
  const float scale_log2 = scale * kLog2E;

  const auto load_keys = [&](int tile) {
    const uint32_t at = uint32_t(tile % 2 * Tiles::kTileBytes);
    load_tile<D, kKeys, Tiles::kThreads>(k_tiles + at, rows.k, rows.stride, tile * kKeys, n);
    load_tile<D, kKeys, Tiles::kThreads>(v_tiles + at, rows.v, rows.stride, tile * kKeys, n);
    copies_issued();
  };
  load_tile<D, kQueries, Tiles::kThreads>(q_tile, rows.q, rows.stride, first_query, n);
  load_tile<D, kQueries, Tiles::kThreads>(g_tile, dout + int64_t(sequence) * n * s.q_cols() + head * D, s.q_cols(),
                                          first_query, n);
  load_keys(0);
  float row_lse[2], row_sum[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t value = int64_t(head) * s.n_tokens() + int64_t(sequence) * n + min(my_row + 8 * half, n - 1);
    row_lse[half] = lse[value];
    row_sum[half] = sums[value];
  }
  float dq[D / 8][4];
  clear(dq);
  for (int tile = 0; tile < n_tiles; ++tile) {
    if (tile + 1 < n_tiles) {
      load_keys(tile + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const int first_key = tile * kKeys;
    const uint32_t k_tile = k_tiles + uint32_t(tile % 2 * Tiles::kTileBytes);
    const uint32_t v_tile = v_tiles + uint32_t(tile % 2 * Tiles::kTileBytes);
    float p[kKeys / 8][4], dp[kKeys / 8][4];
    clear(p);
    clear(dp);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t a[4], c[4];
      load_left<D>(a, q_tile, warp * 16, k);
      load_left<D>(c, g_tile, warp * 16, k);
#pragma unroll
      for (int j = 0; j < kKeys / 16; ++j) {
        uint32_t b[4];
        load_right<D>(b, k_tile, 16 * j, k);
        multiply(p[2 * j], a, b[0], b[1]);
        multiply(p[2 * j + 1], a, b[2], b[3]);
        load_right<D>(b, v_tile, 16 * j, k);
        multiply(dp[2 * j], c, b[0], b[1]);
        multiply(dp[2 * j + 1], c, b[2], b[3]);
      }
    }
    const bool masked = first_key + kKeys - 1 > first_row;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float value = exp2_fast(p[j][e] * scale_log2 - row_lse[e / 2]);
        if (masked && first_key + 8 * j + lane % 4 * 2 + e % 2 > my_row + e / 2 * 8) value = 0;
        dp[j][e] = value * (dp[j][e] - row_sum[e / 2]) * scale;
      }
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t a[4];
      as_left(a, dp[2 * k], dp[2 * k + 1]);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        uint32_t b[4];
        load_right_turned<D>(b, k_tile, 16 * k, j);
        multiply(dq[2 * j], a, b[0], b[1]);
        multiply(dq[2 * j + 1], a, b[2], b[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = my_row + 8 * half;
    if (row >= n) continue;
    Bf16* const to = d_qkv + (int64_t(sequence) * n + row) * s.qkv_cols() + head * D + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      *reinterpret_cast<uint32_t*>(to + 8 * j) = pack_bf16(dq[j][2 * half], dq[j][2 * half + 1]);
    }
  }
}

int parts(int n, int size) { return (n + size - 1) / size; }
template <class Kernel>
void allow_memory(Kernel kernel, int bytes) {
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

template <int D>
void launch_forward(cudaStream_t stream, const void* qkv, const HeadsShape& s, void* out, float* lse) {
  using Tiles = ForwardTiles<D>;
  allow_memory(attention_kernel<D>, Tiles::kBytes);
  const Grid grid(parts(s.n_positions, Tiles::kQueries), s.n_heads, s.n_sequences);
  attention_kernel<D><<<grid.size, Tiles::kThreads, Tiles::kBytes, stream>>>(
      qkv, s, grid.by_length, kLog2E / sqrtf(float(D)), static_cast<Bf16*>(out), lse);
}

template <int D>
void launch_backward(cudaStream_t stream, const void* qkv, const float* lse, const void* dout, const HeadsShape& s,
                     const float* sums, void* d_qkv) {
  using Tiles = BackwardTiles<D>;
  const float scale = 1.0f / sqrtf(float(D));
  const Bf16* const g = static_cast<const Bf16*>(dout);
  Bf16* const d = static_cast<Bf16*>(d_qkv);
  allow_memory(keys_backward_kernel<D>, Tiles::kKeysBytes);
  allow_memory(queries_backward_kernel<D>, Tiles::kQueriesBytes);
  const Grid keys(parts(s.n_positions, kKeys), s.n_kv_heads, s.n_sequences);
  keys_backward_kernel<D>
      <<<keys.size, Tiles::kThreads, Tiles::kKeysBytes, stream>>>(qkv, s, keys.by_length, scale, g, lse, sums, d);
  const Grid queries(parts(s.n_positions, 64), s.n_heads, s.n_sequences);
  queries_backward_kernel<D><<<queries.size, Tiles::kThreads, Tiles::kQueriesBytes, stream>>>(qkv, s, queries.by_length,
                                                                                              scale, g, lse, sums, d);
}

}  // namespace

void attention_tiles(cudaStream_t stream, const void* qkv, const HeadsShape& s, void* out, float* lse) {
  s.head_dim == 64 ? launch_forward<64>(stream, qkv, s, out, lse) : launch_forward<128>(stream, qkv, s, out, lse);
}

void attention_tiles_backward(cudaStream_t stream, const void* qkv, const float* lse, const void* dout,
                              const HeadsShape& s, const float* sums, void* d_qkv) {
  s.head_dim == 64 ? launch_backward<64>(stream, qkv, lse, dout, s, sums, d_qkv)
                   : launch_backward<128>(stream, qkv, lse, dout, s, sums, d_qkv);
}

}  // namespace bitnet::cuda
