#include "kernels/cuda/best_token.cuh"
#include "kernels/cuda/tiled_cache.cuh"

#include <type_traits>

// Attention with an int8 cache (numerics.md 14) on tensor cores, with the CPU's bits: products are integers. A block
// has a key head's tiles and up to eight columns: query heads of one token, or of neighbouring tokens of a prompt. Its
// warps share the positions of scores and then the dimensions of the output, whose tiles are added in order. On Hopper
// one more warp copies tiles to a ring in shared memory, so that the next are on their way whatever the others do;
// before it, they come from the device's memory when they are wanted.
namespace bitnet::cuda {
namespace {

constexpr int kColumns = 8;
constexpr int kAppendWarps = 8;
constexpr int kTileOperands = kPagePositions / 16;
constexpr int kMostStages = 16;
constexpr size_t kMostShared_bytes = 200 * 1024;
constexpr size_t kThirdShared_bytes = 66 * 1024;  // three blocks on a multiprocessor

// A block's arrays for n_tiles tiles and n_columns columns.
struct Places {
  int stride;  // of a column's scores, so that neither eight positions nor two columns share banks
  size_t scales, codes, factors, total;
};
__host__ __device__ inline Places places(int n_tiles, int n_columns) {
  Places p;
  p.stride = n_tiles * kPagePositions + 8;
  p.scales = size_t(n_columns * p.stride) * sizeof(float);
  p.codes = p.scales + size_t(n_tiles * kPagePositions) * sizeof(float);
  p.factors = p.codes + size_t(n_tiles) * 32 * sizeof(uint4);
  p.total = p.factors + size_t(n_tiles * kColumns) * sizeof(float);
  return p;
}

// Tiles in the order in which they are wanted; each side counts for itself.
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance(int n_stages) {
    if (++stage == n_stages) stage = 0, parity ^= 1;
  }
};

template <int kParts, int kWarps, bool kScratch>
__global__ void __launch_bounds__((kWarps + 1) * 32, kWarps == 8 && !kScratch ? 3 : 1)
    tiled_attention_kernel(const __grid_constant__ TokenAttention call, int groups, int tokens_per_block, int n_items,
                           size_t scratch_bytes, int n_stages) {
  constexpr int kThreads = kWarps * 32, kDim = 32 * kParts;  // but for the warp that copies
  constexpr uint32_t kTile_bytes = kTileScales_bytes + kPagePositions * kDim;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ __align__(16) uint32_t queries[kParts * 64];
  __shared__ float query_factors[kColumns], inverses[kColumns];
  __shared__ unsigned maxima[kColumns];  // ordered
  __shared__ float outs[kColumns][kDim + 4];
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_kv_heads = int(call.cache.n_kv_heads), heads_per_kv = call.n_heads / n_kv_heads;
  const bool appends = call.positions != nullptr && groups == n_kv_heads;
  uint8_t* const workspace = kScratch ? reinterpret_cast<uint8_t*>(call.scratch) + blockIdx.x * scratch_bytes
                                      : memory + n_stages * kTile_bytes;
  const auto sync = [] { asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory"); };
  launch_dependents();
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(8) uint64_t full[kMostStages], empty[kMostStages], appended;
  RingPlace next;
  uint32_t item_parity = 0;
  if (tid == 0) {
    for (int i = 0; i < n_stages; ++i) {
      barrier_init(&full[i], 1);
      barrier_init(&empty[i], kWarps);
    }
    barrier_init(&appended, 1);
    barrier_init_fence();
  }
  __syncthreads();
#endif
  if (kScratch || !appends) wait_for_dependencies();

  int item = int(blockIdx.x);
  do {
    const int group = item % groups, token_block = (n_items - 1 - item) / groups;  // the longest first
    const int groups_per_kv = groups / n_kv_heads, kv_head = group / groups_per_kv;
    const int first_head = kv_head * heads_per_kv + group % groups_per_kv * kColumns;
    const int n_heads = min(heads_per_kv - group % groups_per_kv * kColumns, kColumns);
    const int first_token = token_block * tokens_per_block;
    const int n_tokens = min(tokens_per_block, call.n_tokens - first_token), n_columns = n_heads * n_tokens;
    Cache cache = call.cache;
    if (call.tables != nullptr) cache.pages = call.tables + int64_t(first_token) * call.table_stride;
    const Tiles tiles(cache, kv_head);
    const int position = call.positions == nullptr ? call.first_position + first_token : call.positions[first_token];
    if (position < 0) {  // nobody's row
      if (!kScratch && appends) wait_for_dependencies();
      continue;
    }
    // Column c has seen position + 1 + c / n_heads positions.
    const int n_seen = position + n_tokens, n_tiles = (n_seen + kPagePositions - 1) / kPagePositions;
    const auto seen_by = [&](int column) { return position + 1 + column / n_heads; };
    // First all keys, then all values.
    const auto tile_at = [&](int i) { return i < n_tiles ? tiles.keys(i) : tiles.values(i - n_tiles); };
#if __CUDA_ARCH__ >= 900
    if (warp == kWarps) {
      for (int i = 0; lane == 0 && i < 2 * n_tiles; ++i) {
        if (appends && i == n_tiles - 1) barrier_wait(&appended, item_parity);
        barrier_wait(&empty[next.stage], next.parity ^ 1);  // at first it counts as passed
        barrier_expect(&full[next.stage], kTile_bytes);
        bulk_copy(memory + next.stage * kTile_bytes, tile_at(i), kTile_bytes, &full[next.stage]);
        next.advance(n_stages);
      }
      item_parity ^= 1;
      continue;
    }
    const auto wait_for = [&](int) -> const uint8_t* {
      barrier_wait(&full[next.stage], next.parity);
      return memory + next.stage * kTile_bytes;
    };
    const auto release = [&] {
      __syncwarp();
      if (lane == 0) barrier_arrive(&empty[next.stage]);
      next.advance(n_stages);
    };
#else
    if (warp == kWarps) return;
    const auto wait_for = [&](int i) -> const uint8_t* { return tile_at(i); };
    const auto release = [] {};
#endif
    const Places place = places(n_tiles, n_columns);
    float* const scores = reinterpret_cast<float*>(workspace);
    float* const value_scales = reinterpret_cast<float*>(workspace + place.scales);
    uint4* const codes = reinterpret_cast<uint4*>(workspace + place.codes);      // [n_tiles, 32 lanes]
    float* const factors = reinterpret_cast<float*>(workspace + place.factors);  // [n_tiles, kColumns]
    if (tid < kColumns) maxima[tid] = 0;
      // What earlier steps have stored need not wait.
#pragma unroll 4
    for (int p = tid; p < n_seen; p += kThreads) {
      if (appends && p == position) continue;
      value_scales[p] = load1(reinterpret_cast<const float*>(tiles.values(p / kPagePositions)) + p % kPagePositions);
    }
    if (!kScratch && appends) wait_for_dependencies();

    for (int i = warp; i < n_columns + (appends ? 2 : 0); i += kWarps) {
      if (i >= n_columns) {
        const bool key = i == n_columns;
        const int64_t at = (int64_t(first_token) * n_kv_heads + kv_head) * kDim;
        const int tile = position / kPagePositions;
        const float scale = append_tiled<kParts>((key ? call.k : call.v) + at, tile_at(key ? tile : n_tiles + tile),
                                                 call.rope, position, key, lane);
        if (!key && lane == 0) value_scales[position] = scale;
        continue;
      }
      const int token = first_token + i / n_heads, head = first_head + i % n_heads;
      TiledHead<kParts> query;
      query.load(call.q + (int64_t(token) * call.n_heads + head) * kDim, call.rope, seen_by(i) - 1, lane);
      query.encode(lane, [&](int8_t code, int at) {
        reinterpret_cast<int8_t*>(queries)[at / 32 * 256 + column_at(i, at % 32)] = code;
      });
      if (lane == 0) query_factors[i] = query.scale * TiledHead<kParts>::kUnit;
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async;" ::: "memory");  // what was appended is copied next
    sync();
    if (tid == 0) barrier_arrive(&appended);
#else
    sync();
#endif

    const float scale = 1.0f / sqrtf(float(kDim));
    uint32_t b[kParts][2];
#pragma unroll
    for (int j = 0; j < kParts; ++j) b[j][0] = queries[j * 64 + lane], b[j][1] = queries[j * 64 + 32 + lane];
    float column_factors[2], largest[2] = {-INFINITY, -INFINITY};
    int column_seen[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const bool there = 2 * t + e < n_columns;
      column_factors[e] = there ? query_factors[2 * t + e] : 0.0f;
      column_seen[e] = there ? seen_by(2 * t + e) : 0;
    }
    // Four warps have a tile, one row of operands each.
    constexpr int kTurns = kWarps / kTileOperands;
    const int row = warp % kTileOperands;
    for (int tile = 0; tile < n_tiles; ++tile) {
      const uint8_t* const there = wait_for(tile);
      if (tile % kTurns == warp / kTileOperands) {
        int products[4] = {};
#pragma unroll
        for (int j = 0; j < kParts; ++j) {
          const uint4 keys = *reinterpret_cast<const uint4*>(there + kTileScales_bytes +
                                                             (row * kParts + j) * kOperand_bytes + lane * 16);
          mma_s8s8(products, keys, b[j][0], b[j][1]);
        }
        const float* const key_scales = reinterpret_cast<const float*>(there) + row * 16 + g;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int p = tile * kPagePositions + row * 16 + g + e / 2 * 8;
          if (p >= column_seen[e % 2]) continue;
          const float score = ((float(products[e]) * key_scales[e / 2 * 8]) * column_factors[e % 2]) * scale;
          scores[(2 * t + e % 2) * place.stride + p] = score;
          largest[e % 2] = spec_max(score, largest[e % 2]);
        }
      }
      release();
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      for (int step = 4; step < 32; step *= 2) {
        largest[e] = fmaxf(largest[e], __shfl_xor_sync(kFullWarp, largest[e], step));
      }
      if (g == 0) atomicMax(&maxima[2 * t + e], ordered(largest[e]));
    }
    sync();

    // Exponentials and their codes: half a warp has a tile of one column, a lane four positions.
    const int warps_each = kWarps / n_columns;
    if (const int column = warp / warps_each; column < n_columns) {
      const float m = unordered(maxima[column]);
      const int n = seen_by(column), quad = lane % 16;
      float* const mine = scores + column * place.stride + quad * 4;
      for (int tile = warp % warps_each * 2 + lane / 16; tile < (n_tiles + 1) / 2 * 2; tile += 2 * warps_each) {
        const int at = min(tile, n_tiles - 1) * kPagePositions, left = n - at - quad * 4;
        const float4 s = *reinterpret_cast<const float4*>(mine + at);
        const float4 v = *reinterpret_cast<const float4*>(value_scales + at + quad * 4);
        float4 e;
        e.x = left > 0 ? spec_exp(s.x - m) : 0.0f;
        e.y = left > 1 ? spec_exp(s.y - m) : 0.0f;
        e.z = left > 2 ? spec_exp(s.z - m) : 0.0f;
        e.w = left > 3 ? spec_exp(s.w - m) : 0.0f;
        // What nobody has seen may have any scale.
        const float weights[4] = {left > 0 ? e.x * v.x : 0.0f, left > 1 ? e.y * v.y : 0.0f, left > 2 ? e.z * v.z : 0.0f,
                                  left > 3 ? e.w * v.w : 0.0f};
        float most = kTileAbsmaxFloor;
#pragma unroll
        for (int i = 0; i < 4; ++i) most = spec_max(weights[i], most);
#pragma unroll
        for (int step = 8; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, step));
        const float to_code = kCodeLimit / most;
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float code = (weights[i] * to_code + kRoundMagic) - kRoundMagic;
          code = code < kCodeLimit ? code : kCodeLimit;
          word |= uint32_t(int(code > 0.0f ? code : 0.0f)) << (8 * i);
        }
        if (tile >= n_tiles) continue;
        *reinterpret_cast<float4*>(mine + at) = e;
        reinterpret_cast<uint32_t*>(codes + tile * 32 + column * 4 + quad % 4)[quad / 4] = word;
        if (quad == 0) factors[tile * kColumns + column] = most / kCodeLimit;
      }
    }
    sync();
    if (const int column = 2 * (kWarps - 1 - warp) + lane / 16; column / 2 * 2 < n_columns) {
      const float* const from = scores + min(column, n_columns - 1) * place.stride;
      const int n = seen_by(min(column, n_columns - 1));
      float sum = 0.0f;
#pragma unroll 8
      for (int p = lane % 16; p < n; p += 16) sum += from[p];
      sum = fold_lanes(sum);
      if (lane % 16 == 0 && column < n_columns) inverses[column] = (1.0f / sum) * TiledHead<kParts>::kUnit;
    }

    // A warp: 16 dimensions of all columns, or several times that. What columns that are not there give is put nowhere.
    constexpr int kShares = (2 * kParts + kWarps - 1) / kWarps;
    float sums[kShares][4] = {};
    for (int tile = 0; tile < n_tiles; ++tile) {
      const uint8_t* const there = wait_for(n_tiles + tile);
      const uint4 weights = codes[tile * 32 + lane];
      const float2 factor = *reinterpret_cast<const float2*>(factors + tile * kColumns + 2 * t);
#pragma unroll
      for (int i = 0; i < kShares; ++i) {
        const int dims = warp + i * kWarps;
        if (dims >= 2 * kParts) break;
        const uint4* const values =
            reinterpret_cast<const uint4*>(there + kTileScales_bytes + dims * 2 * kOperand_bytes) + lane;
        int products[4] = {};
        mma_s8s8(products, values[0], weights.x, weights.y);
        mma_s8s8(products, values[kOperand_bytes / 16], weights.z, weights.w);
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][e] += float(products[e]) * (e % 2 == 0 ? factor.x : factor.y);
      }
      release();
    }
#pragma unroll
    for (int i = 0; i < kShares; ++i) {
      const int dims = warp + i * kWarps;
      if (dims >= 2 * kParts) break;
#pragma unroll
      for (int e = 0; e < 4; ++e) outs[2 * t + e % 2][dims * 16 + g + e / 2 * 8] = sums[i][e];
    }
    sync();
    for (int column = warp; column < n_columns; column += kWarps) {
      TiledHead<kParts> out;
#pragma unroll
      for (int j = 0; j < kParts; ++j) out.x[j] = outs[column][32 * j + lane] * inverses[column];
      out.rotate(lane);
      const int token = first_token + column / n_heads;
      float* const to = call.out + (int64_t(token) * call.n_heads + first_head + column % n_heads) * kDim;
#pragma unroll
      for (int j = 0; j < kParts; ++j) to[32 * j + lane] = out.x[j];
    }
    if (kScratch) sync();
  } while (kScratch && (item += int(gridDim.x)) < n_items);
}

// A warp: one key or value of one token.
template <int kParts>
__global__ void __launch_bounds__(kAppendWarps * 32) tiled_append_kernel(const __grid_constant__ TokenAttention call) {
  launch_dependents();
  wait_for_dependencies();
  const int n_kv_heads = int(call.cache.n_kv_heads);
  const int i = int(blockIdx.x) * kAppendWarps + int(threadIdx.x) / 32, row = i / 2, token = row / n_kv_heads;
  if (token >= call.n_tokens) return;
  Cache cache = call.cache;
  if (call.tables != nullptr) cache.pages = call.tables + int64_t(token) * call.table_stride;
  const int position = call.positions == nullptr ? call.first_position + token : call.positions[token];
  if (position < 0) return;
  const bool key = i % 2 == 0;
  const Tiles tiles(cache, row % n_kv_heads);
  const int tile = position / kPagePositions;
  append_tiled<kParts>((key ? call.k : call.v) + int64_t(row) * (32 * kParts),
                       key ? tiles.keys(tile) : tiles.values(tile), call.rope, position, key, int(threadIdx.x) % 32);
}

int groups_per_kv(const TokenAttention& call) {
  return (call.n_heads / int(call.cache.n_kv_heads) + kColumns - 1) / kColumns;
}

template <int kParts>
cudaError_t append(const Launcher& launcher, const TokenAttention& call) {
  const unsigned n_blocks = unsigned((2 * call.n_tokens * call.cache.n_kv_heads + kAppendWarps - 1) / kAppendWarps);
  return launch_kernel(launcher, dim3(n_blocks), dim3(kAppendWarps * 32), 0, tiled_append_kernel<kParts>, call);
}

template <int kParts>
cudaError_t attend(const Launcher& launcher, const TokenAttention& call) {
  const int heads_per_kv = call.n_heads / int(call.cache.n_kv_heads),
            groups = int(call.cache.n_kv_heads) * groups_per_kv(call);
  const bool prompt = call.positions == nullptr;
  const int n_heads = heads_per_kv < kColumns ? heads_per_kv : kColumns;
  const int tokens_per_block = prompt ? kColumns / n_heads : 1;
  const int n_items = (call.n_tokens + tokens_per_block - 1) / tokens_per_block * groups;
  const int most_tiles = int((call.cache.n_positions + kPagePositions - 1) / kPagePositions);
  const size_t n_bytes = (places(most_tiles, n_heads * tokens_per_block).total + 127) / 128 * 128;
  // As many stages as there is room for.
  const size_t tile_bytes = size_t(kv_tile_bytes(32 * kParts, 8));
  const auto stages_in = [&](size_t room) {
    const int n = room / tile_bytes < kMostStages ? int(room / tile_bytes) : kMostStages;
    return !launcher.dependent ? 0 : n < 2 ? 2 : n < 2 * most_tiles ? n : 2 * most_tiles;
  };
  const auto start = [&](auto kernel, int n_warps, int n_blocks, size_t n_shared, int n_stages) {
    return launch_kernel(launcher, dim3(unsigned(n_blocks)), dim3(unsigned(n_warps + 1) * 32),
                         n_shared + size_t(n_stages) * tile_bytes, kernel, call, groups, tokens_per_block, n_items,
                         n_bytes, n_stages);
  };
  if (n_bytes + 2 * tile_bytes > kMostShared_bytes) {
    const int n_places = int(size_t(kAttentionBlocks) * size_t(call.cache.n_positions) * sizeof(float) / n_bytes);
    return start(tiled_attention_kernel<kParts, 8, true>, 8, n_items < n_places ? n_items : n_places, 0,
                 stages_in(kThirdShared_bytes));
  }
  if (n_items <= launcher.n_multiprocessors) {
    return start(tiled_attention_kernel<kParts, 16, false>, 16, n_items, n_bytes,
                 stages_in(kMostShared_bytes - n_bytes));
  }
  const size_t room = n_bytes < kThirdShared_bytes ? kThirdShared_bytes - n_bytes : 0;
  return start(tiled_attention_kernel<kParts, 8, false>, 8, n_items, n_bytes, stages_in(room));
}

template <class Run>
cudaError_t with_parts(int64_t head_dim, const Run& run) {
  switch (head_dim / 32) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 3: return run(std::integral_constant<int, 3>());
    case 4: return run(std::integral_constant<int, 4>());
    case 8: return run(std::integral_constant<int, 8>());
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace

bool tiled_cache_takes(int64_t head_dim) { return head_dim % 32 == 0 && (head_dim <= 128 || head_dim == 256); }

cudaError_t tiled_append(const Launcher& launcher, const TokenAttention& call) {
  return with_parts(call.cache.head_dim, [&](auto parts) { return append<parts()>(launcher, call); });
}

cudaError_t tiled_attention(const Launcher& launcher, const TokenAttention& call) {
  if (call.positions == nullptr || groups_per_kv(call) > 1) {
    if (call.k != nullptr) {
      const cudaError_t error = tiled_append(launcher, call);
      if (error != cudaSuccess) return error;
    }
  }
  return with_parts(call.cache.head_dim, [&](auto parts) { return attend<parts()>(launcher, call); });
}

}  // namespace bitnet::cuda
