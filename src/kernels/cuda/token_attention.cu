#include "kernels/cuda/cached_rows.cuh"
#include "kernels/cuda/cluster.cuh"

// Attention of single new tokens (numerics.md 8 in its order) where few of them have to be fast. The blocks of a
// cluster share the query heads of one key head: each computes the scores of its share of the positions and gives them
// to the others, then its share of the output's dimensions, for which it needs all scores.
namespace bitnet::cuda {
namespace {

constexpr int kChunk = 16;  // positions that a block has of a cluster's in turn
constexpr int kItem = 64;   // positions whose rows lie in one stage
constexpr int kStages = 4;
constexpr int kMaxHeadDim = 256;
constexpr int kMaxSplit = 8;

// kSplit, the blocks of a cluster, and kDim are 0 where they are not known here. Most of what a block computes in a
// short context is where its rows lie, which they make simple.
template <TableType kType, int kHeads, int kDim, int kSplit>
__global__ void __launch_bounds__(128 * kHeads, 2)
    token_attention_kernel(const __grid_constant__ TokenAttention call, int split_given, int heads_per_kv,
                           int score_stride) {
  const int split = kSplit > 0 ? kSplit : split_given;
  constexpr int kThreads = 128 * kHeads;
  using Sizes = RowSizes<kType, kDim>;
  using Value = Stored<kType>;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ __align__(16) float q[kHeads * kMaxHeadDim], new_k[kMaxHeadDim], new_v[kMaxHeadDim];
  __shared__ __align__(16) uint8_t new_key[kMaxHeadDim * 4], new_value[kMaxHeadDim * 4];
  __shared__ float maxima[kHeads * 4 * kMaxSplit], inverses[kHeads], tile_sums[kHeads * kMaxHeadDim];
  Cache cache = call.cache;
  const int tid = int(threadIdx.x), token = int(blockIdx.y), d = Sizes::d(cache), row_bytes = Sizes::bytes(cache);
  const int rank = int(blockIdx.x) % split, group = int(blockIdx.x) / split, first_head = group * kHeads;
  const int kv_head = heads_per_kv == kHeads ? group : first_head / heads_per_kv;
  if (call.tables != nullptr) cache.pages = call.tables + token * call.table_stride;
  const int position = call.positions[token], n_seen = position + 1;
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
  constexpr bool kSliced = kType != TableType::kQ8_0;
  const int slice_bytes = kSliced ? row_bytes / split : row_bytes, slice_at = kSliced ? rank * slice_bytes : 0;
  const int value_positions = kSliced ? kItem * split : kItem;
  const int n_items = n_key_items + (n_seen + value_positions - 1) / value_positions;
  const auto chunk_begin = [&](int chunk) { return (chunk * split + rank) * kChunk; };
  const auto stage = [&](int item) { return stages + item % kStages * kItem * row_bytes; };
  const auto row_of = [&](const uint8_t* plane, int p) { return plane + cache_row(cache, kv_head, p) * row_bytes; };
  // Rows before the new token's; its own is in new_key and new_value.
  const auto fetch = [&](int item) {
    uint8_t* const to = stage(item);
    if (item < n_key_items) {
      for (int c = tid / 128; c < kItem / kChunk; c += kHeads) {
        const int begin = chunk_begin(item * (kItem / kChunk) + c), n = min(kChunk, position - begin);
        if (n <= 0) continue;
        copy_rows<true, kDim != 0>(row_of(cache.k, begin), row_bytes, 0, n, row_bytes, Sizes::pieces(row_bytes),
                                   to + c * kChunk * row_bytes, tid % 128, 128);
      }
    } else if (item < n_items) {
      // A share of the threads for each page.
      const int n_pages = value_positions / kPagePositions, n_threads = kThreads / n_pages, page = tid / n_threads;
      const int begin = (item - n_key_items) * value_positions + page * kPagePositions;
      if (const int n = min(kPagePositions, position - begin); n > 0) {
        copy_rows<false, kDim != 0>(row_of(cache.v, begin), row_bytes, slice_at, n, slice_bytes,
                                    Sizes::pieces(slice_bytes), to + page * kPagePositions * slice_bytes,
                                    tid % n_threads, n_threads);
      }
    }
    async_commit();
  };
  if (split > 1) cluster_arrive();
  for (int item = 0; item < kStages - 1; ++item) fetch(item);
  const int head = tid / 128;
  const Angle angle = angle_of(call.rope, position, tid % 128);
  wait_for_dependencies();

  const int64_t new_at = (int64_t(token) * cache.n_kv_heads + kv_head) * d;
  load_rotated(call.q + (int64_t(token) * call.n_heads + first_head + head) * d, call.rope, angle, d, tid % 128,
               [&](float x, int i) { q[head * kMaxHeadDim + i] = x; });
  if (head == 0) {
    load_rotated(call.k + new_at, call.rope, angle, d, tid, [&](float x, int i) {
      new_k[i] = x;
      store_value<kType>(x, i, new_key);
    });
  }
  if (head == kHeads - 1) {
    for (int i = tid % 128; i < d; i += 128) {
      const float x = load1(call.v + new_at + i);
      new_v[i] = x;
      store_value<kType>(x, i, new_value);
    }
  }
  __syncthreads();
  if constexpr (kType == TableType::kQ8_0) {
    if (tid < d / 32) store_q8_0(new_k + 32 * tid, new_key + 34 * tid);
    if (const int i = kThreads - 1 - tid; i < d / 32) store_q8_0(new_v + 32 * i, new_value + 34 * i);
    __syncthreads();
  }
  if (rank == 0 && kv_head * heads_per_kv == first_head) {
    const int64_t at = cache_row(cache, kv_head, position) * row_bytes;
    for (int i = tid; i < row_bytes / 2; i += kThreads) {
      reinterpret_cast<uint16_t*>(cache.k + at)[i] = reinterpret_cast<const uint16_t*>(new_key)[i];
      reinterpret_cast<uint16_t*>(cache.v + at)[i] = reinterpret_cast<const uint16_t*>(new_value)[i];
    }
  }

  // Two threads a score: one has lanes 0 to 7 of the lane sum, the other lanes 8 to 15.
  const float scale = 1.0f / sqrtf(float(d));
  const int r = tid % 128 / 2, half = tid % 2;
  const int mask = swizzle_mask(row_bytes / 16);
  const float* const query = q + head * kMaxHeadDim;
  float largest = -INFINITY;
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
      for (int i = 0; i < d / 16; ++i) {
        Value k;
        Stored<TableType::kF32> qs;
        k.load(row, 16 * i + 8 * half, swizzled);
        qs.load(reinterpret_cast<const uint8_t*>(query), 16 * i + 8 * half, 0);
#pragma unroll
        for (int e = 0; e < 8; ++e) lanes[e] += k.at(e) * qs.at(e);
      }
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) lanes[e] += __shfl_xor_sync(kFullWarp, lanes[e], 1);
#pragma unroll
    for (int e = 0; e < 4; ++e) lanes[e] += lanes[e + 4];
    const float score = ((lanes[0] + lanes[2]) + (lanes[1] + lanes[3])) * scale;
    if (p < n_seen) {
      largest = spec_max(score, largest);
      float* const to = scores + head * score_stride + p;
      if (split == 1) {
        if (half == 0) *to = score;
      } else {
        for (int block = half; block < split; block += 2) cluster_store(to, block, score);
      }
    }
  }
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, step));
  float* const my_maximum = maxima + (head * kMaxSplit + rank) * 4 + tid / 32 % 4;
  if (split == 1) {
    if (tid % 32 == 0) *my_maximum = largest;
    __syncthreads();
  } else {
    if (tid % 32 < split) cluster_store(my_maximum, tid % 32, largest);
    cluster_arrive();
    cluster_wait();
  }

  float m = tid % 32 < 4 * split ? maxima[head * kMaxSplit * 4 + tid % 32] : -INFINITY;
  for (int step = 16; step > 0; step /= 2) m = fmaxf(m, __shfl_xor_sync(kFullWarp, m, step));
  float* const mine = scores + head * score_stride;
  for (int p = tid % 128; p < n_seen; p += 128) mine[p] = spec_exp(mine[p] - m);
  __syncthreads();
  if (const int summed = kThreads / 32 - 1 - tid / 32; summed < kHeads) {
    float lane = 0.0f;
#pragma unroll 8
    for (int p = tid % 16; p < n_seen; p += 16) lane += scores[summed * score_stride + p];
    lane = fold_lanes(lane);
    if (tid % 32 == 0) inverses[summed] = 1.0f / lane;
  }

  // A thread sums one dimension of one head over some of the tiles of an item; their sums are added in order.
  const int n_outputs = kHeads * my_dims, n_parts = min(kThreads / n_outputs, value_positions / kValueTile);
  const int part = tid / n_outputs, output = tid % n_outputs, out_head = output / my_dims, dim = output % my_dims;
  const bool sums_tiles = part < n_parts, puts_out = part == 0;
  const float* const weights = scores + out_head * score_stride;
  const int value_at = kSliced ? dim : rank * my_dims + dim;
  float sum = 0.0f;
  int n_tiles_there = 0;
  const auto add_tiles = [&] {
    for (int tile = 0; puts_out && tile < n_tiles_there; ++tile) sum += tile_sums[tile * n_outputs + output];
  };
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
    add_tiles();  // of the item before
    __syncthreads();
    n_tiles_there = (n + kValueTile - 1) / kValueTile;
    for (int tile = part; sums_tiles && tile < n_tiles_there; tile += n_parts) {
      // The additions are a chain; what they add is loaded 16 positions ahead of them.
      const int first = tile * kValueTile, n_here = min(n - first, kValueTile);
      const float4* const e = reinterpret_cast<const float4*>(weights + begin + first);
      const uint8_t* const rows = there + first * slice_bytes;
      float tile_sum = 0.0f;
      float4 next_e[4];
      float next_v[16];
      const auto load = [&](int p) {
#pragma unroll
        for (int j = 0; j < 4; ++j) next_e[j] = e[p / 4 + j];
#pragma unroll
        for (int j = 0; j < 16; ++j) next_v[j] = Value::value(rows + (p + j) * slice_bytes, value_at);
      };
      const int last = n_here / 16 * 16 - 16;  // of whole sixteens
      if (last >= 0) load(0);
      for (int p = 0; p <= last; p += 16) {
        float terms[16];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          terms[4 * j] = next_e[j].x * next_v[4 * j];
          terms[4 * j + 1] = next_e[j].y * next_v[4 * j + 1];
          terms[4 * j + 2] = next_e[j].z * next_v[4 * j + 2];
          terms[4 * j + 3] = next_e[j].w * next_v[4 * j + 3];
        }
        load(min(p + 16, last));
#pragma unroll
        for (int j = 0; j < 16; ++j) tile_sum += terms[j];
      }
      for (int p = last + 16; p < n_here; ++p) {
        tile_sum += weights[begin + first + p] * Value::value(rows + p * slice_bytes, value_at);
      }
      tile_sums[tile * n_outputs + output] = tile_sum;
    }
  }
  __syncthreads();
  add_tiles();
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

Shape shape_of(const Cache& cache, int n_heads, int most_heads) {
  Shape s;
  const int64_t heads_per_kv = n_heads / cache.n_kv_heads;
  s.score_stride = int((cache.n_positions + 3) / 4 * 4 + 4);
  s.n_heads = most_heads;
  while (heads_per_kv % s.n_heads != 0) s.n_heads /= 2;
  for (;; s.n_heads /= 2) {
    s.n_bytes = size_t(s.n_heads) * s.score_stride * sizeof(float) + size_t(kStages * kItem * cache.row_bytes);
    if (s.n_bytes <= kMostShared_bytes || s.n_heads == 1) return s;
  }
}

template <TableType kType>
cudaError_t launch(const Launcher& launcher, const TokenAttention& call) {
  const Cache& cache = call.cache;
  const bool alone = call.few_positions && cache.head_dim <= 128;
  Shape shape = shape_of(cache, call.n_heads, alone ? 1 : 4);
  // As many blocks as run at once, two on a multiprocessor, where a block then has whole pieces of rows.
  const int64_t n_groups = int64_t(call.n_heads / shape.n_heads) * call.n_tokens;
  const auto fits = [&](int split) {
    return cache.head_dim % split == 0 && (kType == TableType::kQ8_0 || cache.row_bytes % (16 * split) == 0);
  };
  const int most = cache.head_dim > 128 ? 2 : 1;  // a thread has one value of the output
  while (launcher.dependent && !alone && shape.split < kMaxSplit && fits(2 * shape.split) &&
         (n_groups * shape.split <= launcher.n_multiprocessors || shape.split < most)) {
    shape.split *= 2;
  }
  const dim3 grid(unsigned(call.n_heads / shape.n_heads * shape.split), unsigned(call.n_tokens));
  const auto start = [&](auto kernel) {
    return launch_cluster(launcher, shape.split, grid, dim3(unsigned(128 * shape.n_heads)), shape.n_bytes, kernel, call,
                          shape.split, call.n_heads / int(cache.n_kv_heads), shape.score_stride);
  };
  const bool common = cache.head_dim == 128;
  if (shape.n_heads == 4) {
    if constexpr (kType == TableType::kF16) {
      switch (common ? shape.split : 0) {
        case 2: return start(token_attention_kernel<kType, 4, 128, 2>);
        case 4: return start(token_attention_kernel<kType, 4, 128, 4>);
        case 8: return start(token_attention_kernel<kType, 4, 128, 8>);
        default: break;
      }
    }
    return common ? start(token_attention_kernel<kType, 4, 128, 0>) : start(token_attention_kernel<kType, 4, 0, 0>);
  }
  if (shape.n_heads == 2) return start(token_attention_kernel<kType, 2, 0, 0>);
  return start(token_attention_kernel<kType, 1, 0, 0>);
}

}  // namespace

bool token_attention_takes(const Launcher& launcher, const Cache& cache, const Rope& rope, int n_heads) {
  if (cache.type == TableType::kI8) return tiled_cache_takes(cache.head_dim);
  const bool wide = cache.head_dim > 128;
  if (cache.head_dim % 16 != 0 || cache.head_dim > kMaxHeadDim || rope.n_pairs > 128) return false;
  if (wide && (!launcher.dependent || cache.type == TableType::kQ8_0)) return false;
  if (cache.row_bytes % 16 != 0 &&
      (cache.page_rows * cache.row_bytes % 16 != 0 || cache.head_rows * cache.row_bytes % 16 != 0)) {
    return false;
  }
  return shape_of(cache, n_heads, 4).n_bytes <= kMostShared_bytes;
}

cudaError_t token_attention(const Launcher& launcher, const TokenAttention& call) {
  if (call.cache.type == TableType::kI8) return tiled_attention(launcher, call);
  if (batch_attention_takes(launcher, call)) return batch_attention(launcher, call);
  switch (call.cache.type) {
    case TableType::kF16: return launch<TableType::kF16>(launcher, call);
    case TableType::kQ8_0: return launch<TableType::kQ8_0>(launcher, call);
    default: return launch<TableType::kF32>(launcher, call);
  }
}

}  // namespace bitnet::cuda
