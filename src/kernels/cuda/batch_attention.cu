#include "kernels/cuda/cached_rows.cuh"

// Attention of many sequences' new tokens (numerics.md 8 in its order). With work for every multiprocessor, nothing is
// shared between blocks: one has the query heads of a key head, so that every key and value is read and widened once.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kStages = 3;
constexpr int kMaxHeadDim = 128;

template <TableType kType, int kHeads, int kDim>
__global__ void __launch_bounds__(kThreads, 3)
    batch_attention_kernel(const __grid_constant__ TokenAttention call, int n_scores) {
  constexpr int kThreadsPerKey = kHeads > 1 ? 2 : 1, kHeadsEach = kHeads / kThreadsPerKey;
  constexpr int kItem = kThreads / kThreadsPerKey;  // positions whose rows lie in one stage
  using Sizes = RowSizes<kType, kDim>;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ __align__(16) float q[kHeads * kMaxHeadDim], new_k[kMaxHeadDim], new_v[kMaxHeadDim];
  __shared__ __align__(16) uint8_t new_key[kMaxHeadDim * 4], new_value[kMaxHeadDim * 4];
  __shared__ float maxima[kThreads / 32][kHeadsEach], inverses[kHeads];
  Cache cache = call.cache;
  const int tid = int(threadIdx.x), token = int(blockIdx.y), d = Sizes::d(cache), row_bytes = Sizes::bytes(cache);
  const int first_head = int(blockIdx.x) * kHeads;
  const int heads_per_kv = call.n_heads / int(cache.n_kv_heads), kv_head = first_head / heads_per_kv;
  if (call.tables != nullptr) cache.pages = call.tables + token * call.table_stride;
  const int position = call.positions[token], n_seen = position + 1;
  float* const scores = reinterpret_cast<float*>(memory);  // [n_scores, kHeads]
  uint8_t* const stages = memory + size_t(kHeads) * n_scores * sizeof(float);
  launch_dependents();
  if (position < 0) {  // nobody's row
    wait_for_dependencies();
    return;
  }

  const int n_items = (n_seen + kItem - 1) / kItem;  // of keys, then as many of values
  const auto stage = [&](int item) { return stages + item % kStages * kItem * row_bytes; };
  // Rows before the new token's; its own is in new_key and new_value.
  const auto fetch = [&](int item) {
    const bool key = item < n_items;
    const uint8_t* const plane = key ? cache.k : cache.v;
#pragma unroll
    for (int part = 0; part < kItem; part += kPagePositions) {
      const int begin = (key ? item : item - n_items) * kItem + part, n = min(kPagePositions, position - begin);
      if (n <= 0 || item >= 2 * n_items) break;
      const uint8_t* const from = plane + cache_row(cache, kv_head, begin) * row_bytes;
      uint8_t* const to = stage(item) + part * row_bytes;
      const int n_pieces = Sizes::pieces(row_bytes);
      if (key) {
        copy_rows<true, kDim != 0>(from, row_bytes, 0, n, row_bytes, n_pieces, to, tid, kThreads);
      } else {
        copy_rows<false, kDim != 0>(from, row_bytes, 0, n, row_bytes, n_pieces, to, tid, kThreads);
      }
    }
    async_commit();
  };
  for (int item = 0; item < kStages - 1; ++item) fetch(item);
  const Angle angle = angle_of(call.rope, position, tid);
  wait_for_dependencies();

#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    load_rotated(call.q + (int64_t(token) * call.n_heads + first_head + h) * d, call.rope, angle, d, tid,
                 [&](float x, int i) { q[h * kMaxHeadDim + i] = x; });
  }
  const int64_t new_at = (int64_t(token) * cache.n_kv_heads + kv_head) * d;
  load_rotated(call.k + new_at, call.rope, angle, d, tid, [&](float x, int i) {
    new_k[i] = x;
    store_value<kType>(x, i, new_key);
  });
  if (tid < d) {
    new_v[tid] = load1(call.v + new_at + tid);
    store_value<kType>(new_v[tid], tid, new_value);
  }
  __syncthreads();
  if constexpr (kType == TableType::kQ8_0) {
    if (tid < d / 32) store_q8_0(new_k + 32 * tid, new_key + 34 * tid);
    if (const int i = kThreads - 1 - tid; i < d / 32) store_q8_0(new_v + 32 * i, new_value + 34 * i);
    __syncthreads();
  }
  if (first_head % heads_per_kv == 0) {
    const int64_t at = cache_row(cache, kv_head, position) * row_bytes;
    for (int i = tid; i < row_bytes / 2; i += kThreads) {
      reinterpret_cast<uint16_t*>(cache.k + at)[i] = reinterpret_cast<const uint16_t*>(new_key)[i];
      reinterpret_cast<uint16_t*>(cache.v + at)[i] = reinterpret_cast<const uint16_t*>(new_value)[i];
    }
  }

  // A thread: one position and kHeadsEach heads, all 16 lanes of their lane sums.
  const float scale = 1.0f / sqrtf(float(d));
  const int r = tid % kItem, heads = tid / kItem * kHeadsEach, mask = swizzle_mask(row_bytes / 16);
  float largest[kHeadsEach];
#pragma unroll
  for (int h = 0; h < kHeadsEach; ++h) largest[h] = -INFINITY;
  int item = 0;
  for (; item < n_items; ++item) {
    async_wait<kStages - 2>();
    __syncthreads();
    fetch(item + kStages - 1);
    const int p = item * kItem + r;
    if (p >= n_seen) continue;
    const uint8_t* const row = p == position ? new_key : stage(item) + r * row_bytes;
    const int swizzled = p == position || kType == TableType::kQ8_0 ? 0 : swizzle(r, mask);
    float lanes[kHeadsEach][16] = {};
#pragma unroll 4
    for (int base = 0; base < d; base += 16) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Stored<kType> k;
        k.load(row, base + 8 * half, swizzled);
#pragma unroll
        for (int h = 0; h < kHeadsEach; ++h) {
          const float4* const query = reinterpret_cast<const float4*>(q + (heads + h) * kMaxHeadDim + base + 8 * half);
          const float4 low = query[0], high = query[1];
          float* const to = lanes[h] + 8 * half;
          to[0] += k.at(0) * low.x;
          to[1] += k.at(1) * low.y;
          to[2] += k.at(2) * low.z;
          to[3] += k.at(3) * low.w;
          to[4] += k.at(4) * high.x;
          to[5] += k.at(5) * high.y;
          to[6] += k.at(6) * high.z;
          to[7] += k.at(7) * high.w;
        }
      }
    }
#pragma unroll
    for (int h = 0; h < kHeadsEach; ++h) {
      for (int e = 0; e < 8; ++e) lanes[h][e] += lanes[h][e + 8];
#pragma unroll
      for (int e = 0; e < 4; ++e) lanes[h][e] += lanes[h][e + 4];
      const float score = ((lanes[h][0] + lanes[h][2]) + (lanes[h][1] + lanes[h][3])) * scale;
      scores[p * kHeads + heads + h] = score;
      largest[h] = spec_max(score, largest[h]);
    }
  }
#pragma unroll
  for (int h = 0; h < kHeadsEach; ++h) {
    for (int step = 16; step > 0; step /= 2) {
      largest[h] = fmaxf(largest[h], __shfl_xor_sync(kFullWarp, largest[h], step));
    }
    if (tid % 32 == 0) maxima[tid / 32][h] = largest[h];
  }
  __syncthreads();
  // From here on a thread's scores are those of one head.
  const int head = tid % kHeads, first_warp = head / kHeadsEach * (kItem / 32);
  float m = maxima[first_warp][head % kHeadsEach];
#pragma unroll
  for (int warp = 1; warp < kItem / 32; ++warp) m = fmaxf(m, maxima[first_warp + warp][head % kHeadsEach]);
  for (int i = tid; i < n_seen * kHeads; i += kThreads) scores[i] = spec_exp(scores[i] - m);
  __syncthreads();
  if (const int summed = tid / 32; summed < kHeads) {
    float lane = 0.0f;
#pragma unroll 4
    for (int p = tid % 16; p < n_seen; p += 16) lane += scores[p * kHeads + summed];
    lane = fold_lanes(lane);
    if (tid % 32 == 0) inverses[summed] = 1.0f / lane;
  }

  float sums[kHeads] = {}, parts[kHeads];
  for (int begin = 0; begin < n_seen; begin += kItem, ++item) {
    async_wait<kStages - 2>();
    uint8_t* const there = stage(item);
    const int n = min(kItem, n_seen - begin);
    if (begin + n == n_seen) {
      __syncthreads();  // a copy of the last rows may reach into the new one
      for (int i = tid; i < row_bytes / 2; i += kThreads) {
        reinterpret_cast<uint16_t*>(there + (n - 1) * row_bytes)[i] = reinterpret_cast<const uint16_t*>(new_value)[i];
      }
    }
    __syncthreads();
    fetch(item + kStages - 1);
    if (tid >= d) continue;
    const float* const e = scores + begin * kHeads;
    const auto add = [&](int p) {
      const float v = Stored<kType>::value(there + p * row_bytes, tid);
      if constexpr (kHeads == 4) {
        const float4 weights = reinterpret_cast<const float4*>(e)[p];
        parts[0] += weights.x * v;
        parts[1] += weights.y * v;
        parts[2] += weights.z * v;
        parts[3] += weights.w * v;
      } else {
#pragma unroll
        for (int h = 0; h < kHeads; ++h) parts[h] += e[p * kHeads + h] * v;
      }
    };
    for (int tile = 0; tile < n; tile += kValueTile) {
      const int end = min(tile + kValueTile, n);
      int p = tile;
#pragma unroll
      for (int h = 0; h < kHeads; ++h) parts[h] = 0.0f;
      for (; p + 16 <= end; p += 16) {
#pragma unroll
        for (int j = 0; j < 16; ++j) add(p + j);
      }
      for (; p < end; ++p) add(p);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sums[h] += parts[h];
    }
  }
  __syncthreads();
  if (tid >= d) return;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    call.out[(int64_t(token) * call.n_heads + first_head + h) * d + tid] = sums[h] * inverses[h];
  }
}

constexpr size_t kMostShared_bytes = 200 * 1024;

int block_heads(const TokenAttention& call) { return call.n_heads / call.cache.n_kv_heads % 4 == 0 ? 4 : 1; }
int n_scores(const Cache& cache) { return int((cache.n_positions + 15) / 16 * 16); }
size_t shared_bytes(const TokenAttention& call) {
  const int n_heads = block_heads(call);
  return size_t(n_heads) * n_scores(call.cache) * sizeof(float) +
         size_t(kStages * (n_heads > 1 ? kThreads / 2 : kThreads)) * call.cache.row_bytes;
}

template <TableType kType>
cudaError_t launch(const Launcher& launcher, const TokenAttention& call) {
  const int n_heads = block_heads(call);
  const auto start = [&](auto kernel) {
    return launch_kernel(launcher, dim3(unsigned(call.n_heads / n_heads), unsigned(call.n_tokens)), dim3(kThreads),
                         shared_bytes(call), kernel, call, n_scores(call.cache));
  };
  if (n_heads == 1) return start(batch_attention_kernel<kType, 1, 0>);
  return call.cache.head_dim == 128 ? start(batch_attention_kernel<kType, 4, 128>)
                                    : start(batch_attention_kernel<kType, 4, 0>);
}

}  // namespace

bool batch_attention_takes(const Launcher& launcher, const TokenAttention& call) {
  return call.cache.head_dim <= kMaxHeadDim && shared_bytes(call) <= kMostShared_bytes &&
         int64_t(call.n_tokens) * call.cache.n_kv_heads >= int64_t{3} * launcher.n_multiprocessors / 2;
}

cudaError_t batch_attention(const Launcher& launcher, const TokenAttention& call) {
  switch (call.cache.type) {
    case TableType::kF16: return launch<TableType::kF16>(launcher, call);
    case TableType::kQ8_0: return launch<TableType::kQ8_0>(launcher, call);
    default: return launch<TableType::kF32>(launcher, call);
  }
}

}  // namespace bitnet::cuda
