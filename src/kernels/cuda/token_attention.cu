#include "kernels/cuda/cached_rows.cuh"
#include "kernels/cuda/cluster.cuh"

// Attention of single new tokens (numerics.md 8 in its order) where few of them have to be fast. The blocks of a
// cluster share the query heads of one key head: each computes the scores of its share of the positions and gives them
// to the others, then its share of the output's dimensions, for which it needs all scores.
namespace bitnet::cuda {
namespace {

constexpr int kChunk = 16;  // positions that a block has of a cluster's in turn
constexpr int kItem = 64;   // positions whose rows lie in one stage
constexpr int kStages = 6;
constexpr int kMaxHeadDim = 256;

template <TableType kType, int kHeads>
__global__ void __launch_bounds__(128 * kHeads)
    token_attention_kernel(const __grid_constant__ TokenAttention call, int split, int score_stride) {
  constexpr int kThreads = 128 * kHeads;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ __align__(16) float q[kHeads * kMaxHeadDim], new_k[kMaxHeadDim], new_v[kMaxHeadDim];
  __shared__ __align__(16) uint8_t new_key[kMaxHeadDim * 4], new_value[kMaxHeadDim * 4];
  __shared__ float maxima[kThreads / 32], inverses[kHeads];
  Cache cache = call.cache;
  const int tid = int(threadIdx.x), token = int(blockIdx.y), d = int(cache.head_dim);
  const int rank = int(blockIdx.x) % split, first_head = int(blockIdx.x) / split * kHeads;
  const int heads_per_kv = call.n_heads / int(cache.n_kv_heads), kv_head = first_head / heads_per_kv;
  if (call.tables != nullptr) cache.pages = call.tables + token * call.table_stride;
  const int position = call.positions[token], n_seen = position + 1, row_bytes = int(cache.row_bytes);
  float* const scores = reinterpret_cast<float*>(memory);  // [kHeads, score_stride]
  uint8_t* const stages = memory + size_t(kHeads) * score_stride * sizeof(float);
  launch_dependents();
  if (position < 0) {  // nobody's row
    wait_for_dependencies();
    return;
  }

  const int n_chunks = (n_seen + kChunk - 1) / kChunk, n_mine = (n_chunks - rank + split - 1) / split;
  const int n_key_items = (n_mine + kItem / kChunk - 1) / (kItem / kChunk);
  const int my_dims = d / split;
  const bool sliced = kType != TableType::kQ8_0;
  const int slice_bytes = sliced ? row_bytes / split : row_bytes, slice_at = sliced ? rank * slice_bytes : 0;
  const int value_positions = sliced ? kItem * split : kItem;
  const auto chunk_begin = [&](int chunk) { return (chunk * split + rank) * kChunk; };
  const auto stage = [&](int item) { return stages + item % kStages * kItem * row_bytes; };
  // Rows before the new token's; its own is in new_key and new_value.
  const auto fetch = [&](int item) {
    uint8_t* const to = stage(item);
    if (item < n_key_items) {
      for (int c = tid / 128; c < kItem / kChunk; c += kHeads) {
        const int begin = chunk_begin(item * (kItem / kChunk) + c);
        copy_rows<kType, true>(cache, cache.k, kv_head, begin, min(begin + kChunk, position), 0, row_bytes,
                               to + c * kChunk * row_bytes, tid % 128, 128);
      }
    } else {
      const int begin = (item - n_key_items) * value_positions;
      copy_rows<kType, false>(cache, cache.v, kv_head, begin, min(begin + value_positions, position), slice_at,
                              slice_bytes, to, tid, kThreads);
    }
    async_commit();
  };
  if (split > 1) cluster_arrive();
  for (int item = 0; item < kStages - 1; ++item) fetch(item);
  wait_for_dependencies();

  for (int i = tid; i < kHeads * d; i += kThreads) {
    q[i / d * kMaxHeadDim + i % d] = load1(call.q + (int64_t(token) * call.n_heads + first_head) * d + i);
  }
  const int64_t new_at = (int64_t(token) * cache.n_kv_heads + kv_head) * d;
  for (int i = tid; i < d; i += kThreads) {
    new_k[i] = load1(call.k + new_at + i);
    new_v[i] = load1(call.v + new_at + i);
  }
  __syncthreads();
  rotate(q + tid / 128 * kMaxHeadDim, call.rope, position, tid % 128);
  rotate(new_k, call.rope, position, kThreads - 1 - tid);
  __syncthreads();
  for (int i = tid; i < d; i += kThreads) {
    store_row<kType>(new_k, d, i, new_key);
    store_row<kType>(new_v, d, i, new_value);
  }
  __syncthreads();
  if (rank == 0 && first_head % heads_per_kv == 0) {
    const int64_t at = cache_row(cache, kv_head, position) * row_bytes;
    for (int i = tid; i < row_bytes / 2; i += kThreads) {
      reinterpret_cast<uint16_t*>(cache.k + at)[i] = reinterpret_cast<const uint16_t*>(new_key)[i];
      reinterpret_cast<uint16_t*>(cache.v + at)[i] = reinterpret_cast<const uint16_t*>(new_value)[i];
    }
  }

  // Two threads a score: one has lanes 0 to 7 of the lane sum, the other lanes 8 to 15.
  const float scale = 1.0f / sqrtf(float(d));
  const int head = tid / 128, r = tid % 128 / 2, half = tid % 2;
  const int mask = swizzle_mask(row_bytes / 16);
  const float* const query = q + head * kMaxHeadDim;
  if (split > 1) cluster_wait();  // the others are there
  int item = 0;
  for (; item < n_key_items; ++item) {
    async_wait<kStages - 2>();
    __syncthreads();
    fetch(item + kStages - 1);
    const int p = chunk_begin(item * (kItem / kChunk) + r / kChunk) + r % kChunk;
    float lanes[8] = {};
    if (p < n_seen) {
      const uint8_t* const row = p == position ? new_key : stage(item) + r * row_bytes;
      const int swizzled = p == position || kType == TableType::kQ8_0 ? 0 : swizzle(r, mask);
#pragma unroll 8
      for (int base = half * 8; base < d; base += 16) {
        Stored<kType> k;
        Stored<TableType::kF32> qs;
        k.load(row, base, swizzled);
        qs.load(reinterpret_cast<const uint8_t*>(query), base, 0);
#pragma unroll
        for (int e = 0; e < 8; ++e) lanes[e] += k.at(e) * qs.at(e);
      }
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) lanes[e] += __shfl_xor_sync(kFullWarp, lanes[e], 1);
#pragma unroll
    for (int step = 4; step > 0; step /= 2) {
      for (int e = 0; e < step; ++e) lanes[e] += lanes[e + step];
    }
    if (p < n_seen) {
      float* const to = scores + head * score_stride + p;
      const float score = lanes[0] * scale;
      if (split == 1) {
        if (half == 0) *to = score;
      } else {
        for (int block = half; block < split; block += 2) cluster_store(to, block, score);
      }
    }
  }
  if (split > 1) {
    cluster_arrive();
    cluster_wait();
  } else {
    __syncthreads();
  }

  float* const mine = scores + head * score_stride;
  float largest = -INFINITY;
  for (int p = tid % 128; p < n_seen; p += 128) largest = spec_max(mine[p], largest);
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, step));
  if (tid % 32 == 0) maxima[tid / 32] = largest;
  __syncthreads();
  const float m = fmaxf(fmaxf(maxima[head * 4], maxima[head * 4 + 1]), fmaxf(maxima[head * 4 + 2], maxima[head * 4 + 3]));
  for (int p = tid % 128; p < n_seen; p += 128) mine[p] = spec_exp(mine[p] - m);
  __syncthreads();
  if (const int summed = kThreads / 32 - 1 - tid / 32; summed < kHeads) {
    float lane = 0.0f;
#pragma unroll 4
    for (int p = tid % 16; p < n_seen; p += 16) lane += scores[summed * score_stride + p];
    lane = fold_lanes(lane);
    if (tid % 32 == 0) inverses[summed] = 1.0f / lane;
  }

  const int out_head = tid / my_dims, dim = tid % my_dims;
  const bool puts_out = out_head < kHeads;
  const float* const weights = scores + (puts_out ? out_head : 0) * score_stride;
  const int value_at = sliced ? dim : rank * my_dims + dim;
  float sum = 0.0f;
  for (int begin = 0; begin < n_seen; begin += value_positions, ++item) {
    async_wait<kStages - 2>();
    uint8_t* const there = stage(item);
    const int n = min(value_positions, n_seen - begin);
    if (begin + n == n_seen) {
      __syncthreads();  // a copy of the last rows may reach into the new one
      for (int i = tid; i < slice_bytes / 2; i += kThreads) {
        reinterpret_cast<uint16_t*>(there + (n - 1) * slice_bytes)[i] =
            reinterpret_cast<const uint16_t*>(new_value + slice_at)[i];
      }
    }
    __syncthreads();
    fetch(item + kStages - 1);
    if (puts_out) {
      const float* const e = weights + begin;
      int p = 0;
      for (; p + 16 <= n; p += 16) {
        float terms[16];
#pragma unroll
        for (int j = 0; j < 16; ++j) terms[j] = e[p + j] * Stored<kType>::value(there + (p + j) * slice_bytes, value_at);
#pragma unroll
        for (int j = 0; j < 16; ++j) sum += terms[j];
      }
      for (; p < n; ++p) sum += e[p] * Stored<kType>::value(there + p * slice_bytes, value_at);
    }
  }
  __syncthreads();
  if (puts_out) {
    call.out[(int64_t(token) * call.n_heads + first_head + out_head) * d + rank * my_dims + dim] =
        sum * inverses[out_head];
  }
}

struct Shape {
  int n_heads = 0;  // a block's
  int split = 1;
  int score_stride = 0;
  size_t n_bytes = 0;
};

constexpr size_t kMostShared_bytes = 200 * 1024;

Shape shape_of(const Cache& cache, int n_heads) {
  Shape s;
  const int64_t heads_per_kv = n_heads / cache.n_kv_heads;
  s.score_stride = int((cache.n_positions + 3) / 4 * 4 + 4);
  for (s.n_heads = heads_per_kv % 4 == 0 ? 4 : heads_per_kv % 2 == 0 ? 2 : 1;; s.n_heads /= 2) {
    s.n_bytes = size_t(s.n_heads) * s.score_stride * sizeof(float) + size_t(kStages * kItem * cache.row_bytes);
    if (s.n_bytes <= kMostShared_bytes || s.n_heads == 1) return s;
  }
}

template <TableType kType>
cudaError_t launch(const Launcher& launcher, const TokenAttention& call) {
  const Cache& cache = call.cache;
  Shape shape = shape_of(cache, call.n_heads);
  // As many blocks as give each multiprocessor one, where a block then has whole pieces of rows.
  const int64_t n_groups = int64_t(call.n_heads / shape.n_heads) * call.n_tokens;
  const auto fits = [&](int split) {
    return cache.head_dim % split == 0 && (kType == TableType::kQ8_0 || cache.row_bytes % (16 * split) == 0);
  };
  const int most = cache.head_dim > 128 ? 2 : 1;  // a thread has one value of the output
  while (launcher.dependent && shape.split < 8 && fits(2 * shape.split) &&
         (n_groups * shape.split < 160 || shape.split < most)) {
    shape.split *= 2;
  }
  const dim3 grid(unsigned(call.n_heads / shape.n_heads * shape.split), unsigned(call.n_tokens));
  const auto start = [&](auto kernel) {
    return launch_cluster(launcher, shape.split, grid, dim3(unsigned(128 * shape.n_heads)), shape.n_bytes, kernel, call,
                          shape.split, shape.score_stride);
  };
  if (shape.n_heads == 4) return start(token_attention_kernel<kType, 4>);
  if (shape.n_heads == 2) return start(token_attention_kernel<kType, 2>);
  return start(token_attention_kernel<kType, 1>);
}

}  // namespace

bool token_attention_takes(const Launcher& launcher, const Cache& cache, const Rope& rope, int n_heads) {
  const bool wide = cache.head_dim > 128;
  if (cache.head_dim % 16 != 0 || cache.head_dim > kMaxHeadDim || rope.n_pairs > 128) return false;
  if (wide && (!launcher.dependent || cache.type == TableType::kQ8_0)) return false;
  if (cache.row_bytes % 16 != 0 && (cache.page_rows * cache.row_bytes % 16 != 0 ||
                                    cache.head_rows * cache.row_bytes % 16 != 0)) {
    return false;
  }
  return shape_of(cache, n_heads).n_bytes <= kMostShared_bytes;
}

cudaError_t token_attention(const Launcher& launcher, const TokenAttention& call) {
  if (batch_attention_takes(launcher, call)) return batch_attention(launcher, call);
  switch (call.cache.type) {
    case TableType::kF16: return launch<TableType::kF16>(launcher, call);
    case TableType::kQ8_0: return launch<TableType::kQ8_0>(launcher, call);
    default: return launch<TableType::kF32>(launcher, call);
  }
}

}  // namespace bitnet::cuda
