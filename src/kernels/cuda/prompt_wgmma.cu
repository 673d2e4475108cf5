#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_block.cuh"
#include "kernels/cuda/wgmma.cuh"

// Products of many tokens on Hopper. One block a multiprocessor works through tiles of 256 rows and 128 tokens. One of
// its warps copies codes of weights and activations to a ring in shared memory; two warpgroups have 128 of the rows
// each, unpack their weights in registers and multiply. Where there are fewer tiles than blocks, or too few for the
// last round, the blocks of a cluster share a tile: each takes a part of the columns, and integer sums go through
// shared memory to the block that puts a part of the tokens out.
namespace bitnet::cuda {
namespace {

constexpr int kConsumers = 256;
constexpr int kConsumerWarps = kConsumers / 32;
constexpr int kProducers = 128;
constexpr int kThreads = kConsumers + kProducers;
constexpr int kRowTiles = 16;  // of a tile
constexpr int kCodeBytes = kTokenBlock * kTileCols;
constexpr int kStage_bytes = kCodeBytes + kRowTiles * kTileBytes;
constexpr int kStages = 6;
constexpr int kLead = 4;
constexpr int kGroups = kTokenBlock / 8;  // of eight tokens, the columns of an accumulator's four registers
// Sums of four groups of tokens on their way out, a warpgroup's 128 rows each, in two buffers used in turn. The stride
// keeps the lanes that write them apart.
constexpr int kPassGroups = 4;
constexpr int kSumStride = 128 + 4;
constexpr int kSums = kPassGroups * 8 * kSumStride;
constexpr size_t kShared_bytes = size_t(kStages) * kStage_bytes + 4 * kSums * sizeof(int) + 1024;

// Row tile `tile` of all segments one after the other; with a gate tile by tile of both segments.
struct RowTile {
  int segment, tile;
};
__device__ inline RowTile row_tile(const PromptProduct& call, bool gate, int row_block, int group, int a, int warp) {
  if (gate) return {a, row_block * (kRowTiles / 2) + group * 4 + warp};
  int tile = row_block * kRowTiles + (group * 2 + a) * 4 + warp, segment = 0;
  while (segment + 1 < call.n_segments && tile >= call.segments[segment].n_row_tiles) {
    tile -= call.segments[segment++].n_row_tiles;
  }
  return {segment, tile};
}

__host__ __device__ inline int row_blocks(const PromptProduct& call) {
  if (is_gate(call.epilogue)) return (call.segments[0].n_row_tiles + kRowTiles / 2 - 1) / (kRowTiles / 2);
  int n = 0;
  for (int i = 0; i < call.n_segments; ++i) n += call.segments[i].n_row_tiles;
  return (n + kRowTiles - 1) / kRowTiles;
}

// A tile, or a block's share of one.
struct Piece {
  int token_block, row_block, k_begin, k_end;
  bool shared;
};

// What this block does in each round. Whole tiles come first; the rest is shared by clusters.
template <int kCluster>
struct Schedule {
  int n_tiles, n_token_blocks, n_col_tiles, n_whole;
  __device__ explicit Schedule(const PromptProduct& call)
      : n_token_blocks((call.x.n_tokens + kTokenBlock - 1) / kTokenBlock), n_col_tiles(call.x.n_col_tiles) {
    n_tiles = row_blocks(call) * n_token_blocks;
    const int n_blocks = int(gridDim.x);
    n_whole = kCluster == 1 ? (n_tiles + n_blocks - 1) / n_blocks : n_tiles / n_blocks;
  }
  __device__ bool piece(int round, Piece& p) const {
    const int n_blocks = int(gridDim.x), block = int(blockIdx.x);
    int tile = block + round * n_blocks;
    p.shared = kCluster > 1 && round >= n_whole;
    p.k_begin = 0;
    p.k_end = n_col_tiles;
    if (p.shared) {
      const int rank = block % kCluster;
      tile = n_whole * n_blocks + block / kCluster + (round - n_whole) * (n_blocks / kCluster);
      p.k_begin = rank * n_col_tiles / kCluster;
      p.k_end = (rank + 1) * n_col_tiles / kCluster;
    }
    p.token_block = tile % n_token_blocks;
    p.row_block = tile / n_token_blocks;
    return tile < n_tiles;
  }
};

constexpr int kMagic = 0x4b400000;  // 1.5 * 2^23 as float32: adding an integer to its bits makes a float of it
// Of a token's sums: what is subtracted, with kMagic added to it, and the factor.
struct TokenScale {
  int less;
  float inv;
};

// Where a warpgroup's sums go: a lane has four rows, with a gate those of both segments and every other token.
class Output {
 public:
  __device__ Output(const PromptProduct& call, const Piece& p, int group, int lane)
      : call_(call),
        gate_(is_gate(call.epilogue)),
        column_(lane % (gate_ ? 16 : 32) * 4),
        odd_(gate_ ? lane / 16 : 0),
        first_token_(p.token_block * kTokenBlock + odd_) {
    const RowTile at = row_tile(call, gate_, p.row_block, group, column_ / 64, column_ % 64 / kTileRows);
    const Segment& s = call.segments[at.segment];
    const int row = at.tile * kTileRows + column_ % kTileRows;
    n_rows_ = s.n_rows;
    alpha_ = s.alpha;
    out_ = s.out + row;
    n_valid_ = min(s.n_rows - row, 4);
    // The same for all lanes of all tiles but the last ones.
    const bool fits = n_valid_ == 4 && s.n_rows % 4 == 0 && (p.token_block + 1) * kTokenBlock <= call.x.n_tokens;
    whole_ = __all_sync(kFullWarp, fits);
  }
  // What group `group` of the piece's tokens is added to.
  __device__ void read(int group, float4 (&before)[8]) const {
    const float* const from = out_ + size_t(first_token_ + group * 8) * n_rows_;
    if (whole_) {
#pragma unroll
      for (int i = 0; i < 8; ++i) before[i] = load4(from + size_t(i) * n_rows_);
    }
  }
  // The group's sums, by a warp. Scales are those of the piece's tokens. Reads what group `next` is added to, if there
  // is such a group.
  __device__ void put(const int* sums, const TokenScale* scales, int group, int next, float4 (&before)[8]) const {
    const int* const from = sums + odd_ * kSumStride + column_;
    const TokenScale* const scale = scales + group * 8 + odd_;
    float* const to = out_ + size_t(first_token_ + group * 8) * n_rows_;
    const size_t stride = size_t(n_rows_);
    if (!whole_) {
      put_part(from, scale, group, to);
    } else if (call_.epilogue == Epilogue::kGateRelu2) {
#pragma unroll
      for (int i = 0; i < 8; i += 2) store4(to + i * stride, gate(true, from + i * kSumStride, scale[i]));
    } else if (gate_) {
#pragma unroll 1
      for (int i = 0; i < 8; i += 2) store4(to + i * stride, gate(false, from + i * kSumStride, scale[i]));
    } else if (call_.epilogue == Epilogue::kAdd) {
      const ptrdiff_t ahead = ptrdiff_t(next < kGroups ? next - group : 0) * 8 * n_rows_;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float4 y = values(from + i * kSumStride, scale[i], alpha_), x = before[i];
        before[i] = load4(to + i * stride + ahead);
        store4(to + i * stride, make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w));
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) store4(to + i * stride, values(from + i * kSumStride, scale[i], alpha_));
    }
  }

 private:
  // The conversion is exact: sums are far from 2^22.
  static __device__ float4 values(const int* sums, const TokenScale& scale, float alpha) {
    const int4 v = *reinterpret_cast<const int4*>(sums);
    const auto value = [&](int sum) {
      return ((__int_as_float(sum + scale.less) - __int_as_float(kMagic)) * scale.inv) * alpha;
    };
    return make_float4(value(v.x), value(v.y), value(v.z), value(v.w));
  }
  __device__ float4 gate(bool relu2, const int* sums, const TokenScale& scale) const {
    const float4 y = values(sums, scale, alpha_), up = values(sums + 64, scale, call_.segments[1].alpha);
    return make_float4(gated(relu2, y.x, up.x), gated(relu2, y.y, up.y), gated(relu2, y.z, up.z),
                       gated(relu2, y.w, up.w));
  }
  static __device__ void store4(float* to, const float4& y) { *reinterpret_cast<float4*>(to) = y; }
  // Where there are fewer tokens or rows, or rows that do not begin at 16 bytes.
  __device__ void put_part(const int* sums, const TokenScale* scale, int group, float* to) const {
#pragma unroll 1
    for (int i = 0; i < 8; i += gate_ ? 2 : 1) {
      if (first_token_ + group * 8 + i >= call_.x.n_tokens) return;
      const float4 y = gate_ ? gate(call_.epilogue == Epilogue::kGateRelu2, sums + i * kSumStride, scale[i])
                             : values(sums + i * kSumStride, scale[i], alpha_);
      const float all[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float* const place = to + size_t(i) * n_rows_ + e;
        if (e < n_valid_) *place = call_.epilogue == Epilogue::kAdd ? load1(place) + all[e] : all[e];
      }
    }
  }

  const PromptProduct& call_;
  bool gate_, whole_;
  int column_, odd_, first_token_;
  float* out_;
  int n_rows_, n_valid_;
  float alpha_;
};

#if BN_HAS_WGMMA
// Keeps the compiler from moving what these registers get or give over this place: they belong to the tensor cores
// from multiply() until a wait.
__device__ inline void pin(uint32_t (&planes)[2][2][4]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      asm volatile(""
                   : "+r"(planes[a][s][0]), "+r"(planes[a][s][1]), "+r"(planes[a][s][2]), "+r"(planes[a][s][3])::"memory");
    }
  }
}
__device__ inline void pin(int (&acc)[2][64]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int i = 0; i < 64; ++i) asm volatile("" : "+r"(acc[a][i])::"memory");
  }
}

// Half a column tile: two steps of 32 columns.
__device__ inline void unpack(const uint4 (&words)[2], int half, uint32_t (&planes)[2][2][4]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const uint32_t w = half == 0 ? (s == 0 ? words[a].x : words[a].y) : (s == 0 ? words[a].z : words[a].w);
#pragma unroll
      for (int p = 0; p < 4; ++p) planes[a][s][p] = w >> (2 * p) & 0x03030303u;
    }
  }
  pin(planes);
}
__device__ inline void multiply(int (&acc)[2][64], const uint32_t (&planes)[2][2][4], uint64_t descriptor) {
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < 2; ++s) {
#pragma unroll
    for (int a = 0; a < 2; ++a) wgmma_u8s8(acc[a], planes[a][s], descriptor + uint64_t(2 * s));
  }
  wgmma_commit();
}
// Stages in shared memory, by their addresses there: few registers are left beside the sums.
struct Ring {
  uint8_t* memory;
  uint64_t *full, *empty;
};
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Weights do not wait for the kernel in front of this one.
template <int kCluster>
__device__ void produce(const PromptProduct& call, const Schedule<kCluster>& schedule, const Ring& ring,
                        uint64_t* reduced, int tid) {
  constexpr int kWarps = kProducers / 32, kEach = kRowTiles / kWarps;
  const int warp = tid / 32, lane = tid % 32;
  const size_t row_bytes = size_t(schedule.n_col_tiles) * kTileBytes;  // of a row tile
  Piece p;
  Place place;
  int n_shared = 0;
  for (int round = 0; schedule.piece(round, p); ++round) {
    const uint8_t* weights[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {  // tiles beyond the last repeat it and are not put out
      const RowTile at = row_tile(call, is_gate(call.epilogue), p.row_block, warp / 2, warp % 2, i);
      const Segment& s = call.segments[at.segment];
      weights[i] = reinterpret_cast<const uint8_t*>(s.tiles + lane) + min(at.tile, s.n_row_tiles - 1) * row_bytes;
    }
    const int8_t* const codes = call.x.codes + size_t(p.token_block) * schedule.n_col_tiles * kCodeBytes;
    const auto fetch_weights = [&](int k, int stage) {
      uint8_t* const to = ring.memory + stage * kStage_bytes + kCodeBytes + warp * kEach * kTileBytes + lane * 16;
#pragma unroll
      for (int i = 0; i < kEach; ++i) async_copy16(to + i * kTileBytes, weights[i] + k * kTileBytes);
      barrier_arrive_copied(ring.full + stage);
    };
    const auto fetch_codes = [&](int k, int stage) {
      if (tid > 0) return;
      barrier_expect(ring.full + stage, kCodeBytes);
      bulk_copy(ring.memory + stage * kStage_bytes, codes + size_t(k) * kCodeBytes, kCodeBytes, ring.full + stage);
    };
    if (n_shared > 0) barrier_wait(reduced, uint32_t((n_shared - 1) & 1));
    int k = p.k_begin;
    if (round == 0) {
      const int n_first = min(kStages, p.k_end - p.k_begin);
      for (int i = 0; i < n_first; ++i) fetch_weights(k + i, i);
      wait_for_dependencies();
      for (int i = 0; i < n_first; ++i, ++k, place.next()) fetch_codes(k, i);
    }
    for (; k < p.k_end; ++k, place.next()) {
      barrier_wait(ring.empty + place.stage, place.parity ^ 1);
      fetch_codes(k, place.stage);
      fetch_weights(k, place.stage);
    }
    if (p.shared) {
      ++n_shared;
      for (int i = 0; i < 2; ++i) {
        __syncwarp();
        cluster_arrive();
        cluster_wait();
      }
    }
  }
}

// Barriers of a warpgroup, and of both, where one only arrives.
__device__ inline void group_barrier(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }
__device__ inline void lead_arrive() { asm volatile("bar.arrive 3, 256;" ::: "memory"); }
__device__ inline void lead_wait() { asm volatile("bar.sync 3, 256;" ::: "memory"); }

__device__ inline uint4 shared_words(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// Sums of n_k column tiles. A warpgroup always has a group of products on its way while it unpacks the next.
// leads: the other warpgroup starts when this one has a lead of kLead column tiles, so that from then on one
// multiplies while the other puts out.
__device__ inline void accumulate(const Ring& ring, int n_k, Place& place, int warp, int lane, bool leads,
                                  int (&acc)[2][64]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[a][i] = 0;
  }
  pin(acc);
  if (n_k == 0) return;
  const uint32_t base = shared_address(ring.memory), full = shared_address(ring.full), empty = shared_address(ring.empty);
  const uint32_t mine = base + uint32_t(kCodeBytes + (warp / 4 * 8 + warp % 4) * kTileBytes + lane * 16);
  uint4 words[2];
  uint32_t low[2][2][4], high[2][2][4];
  const auto load = [&] {
    barrier_wait(full + uint32_t(place.stage) * 8, place.parity);
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      words[a] = shared_words(mine + uint32_t(place.stage * kStage_bytes + a * 4 * kTileBytes));
    }
  };
  load();
  unpack(words, 0, low);
  uint32_t last = 0;  // the stage in front of this one
  for (int k = 0; k < n_k; ++k) {
    const uint64_t descriptor = swizzled_descriptor(base + uint32_t(place.stage * kStage_bytes));
    multiply(acc, low, descriptor);
    wgmma_wait<1>();
    if (k > 0) {
      pin(high);
      if (lane == 0) barrier_arrive(last);
    }
    unpack(words, 1, high);
    multiply(acc, high, descriptor + 4);
    last = empty + uint32_t(place.stage) * 8;
    place.next();
    if (leads && k == min(kLead, n_k - 1)) lead_arrive();
    if (k + 1 < n_k) load();
    wgmma_wait<1>();
    pin(low);
    unpack(words, 0, low);
  }
  wgmma_wait<0>();
  pin(high);
  pin(acc);
  if (lane == 0) barrier_arrive(last);
}

// The blocks of a cluster send each other what the others put out: group u of tokens is put out by block u % kCluster,
// which then has its sums in acc as group u / kCluster.
template <int kCluster>
__device__ inline void reduce(const Ring& ring, int tid, int (&acc)[2][64]) {
  constexpr int kMine = (kGroups + kCluster - 1) / kCluster;
  const int rank = int(blockIdx.x) % kCluster;
  int4* const room = reinterpret_cast<int4*>(ring.memory);
  const auto place = [&](int sender, int j, int a) { return room + ((sender * kMine + j) * 2 + a) * kConsumers + tid; };
  cluster_arrive();
  cluster_wait();
#pragma unroll
  for (int u = 0; u < kGroups; ++u) {
    const int owner = u % kCluster;
    if (owner == rank) continue;
    const int sender = (rank - owner - 1 + kCluster) % kCluster;
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      cluster_store(place(sender, u / kCluster, a), owner,
                    make_int4(acc[a][4 * u], acc[a][4 * u + 1], acc[a][4 * u + 2], acc[a][4 * u + 3]));
    }
  }
  cluster_arrive();
  cluster_wait();
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      int sums[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[e] = acc[a][4 * (j * kCluster) + e];
#pragma unroll
        for (int r = 1; r < kCluster; ++r) {
          if (r == rank && j * kCluster + r < kGroups) sums[e] = acc[a][4 * (j * kCluster + r) % 64 + e];
        }
      }
#pragma unroll
      for (int sender = 0; sender < kCluster - 1; ++sender) {
        const int4 v = *place(sender, j, a);
        sums[0] += v.x;
        sums[1] += v.y;
        sums[2] += v.z;
        sums[3] += v.w;
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[a][4 * j + e] = sums[e];
    }
  }
}

// Groups of tokens first, first + step, ... of the piece, which acc has one after the other. They go through shared
// memory, so that rows of an output lie side by side and the code is short: it is fetched once in so many products.
__device__ inline void put_out(const PromptProduct& call, const Piece& p, int* memory, const TokenScale* scales,
                               int warp, int lane, int first, int step, const int (&acc)[2][64]) {
  const int group = warp / 4, quarter = warp % 4, g = lane / 4, t = lane % 4;
  const Output output(call, p, group, lane);
  const bool adds = call.epilogue == Epilogue::kAdd;
  float4 before[8];
  if (adds) output.read(quarter * step + first, before);
#pragma unroll 1
  for (int pass = 0; pass * kPassGroups * step + first < kGroups; ++pass) {
    int* const sums = memory + (2 * group + pass % 2) * kSums;
    int* const to = sums + 2 * t * kSumStride + quarter * kTileRows + g;
#pragma unroll
    for (int u = 0; u < kGroups; ++u) {
      if (u / kPassGroups != pass) continue;
#pragma unroll
      for (int a = 0; a < 2; ++a) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          to[(u % kPassGroups * 8 + e % 2) * kSumStride + a * 64 + e / 2 * 8] = acc[a][4 * u + e];
        }
      }
    }
    group_barrier(group);  // which all pass that have read the buffer of the pass before
    const int mine = (pass * kPassGroups + quarter) * step + first, next = mine + kPassGroups * step;
    if (mine < kGroups) output.put(sums + quarter * 8 * kSumStride, scales, mine, next, before);
  }
}
#endif

template <int kCluster>
__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(const __grid_constant__ PromptProduct call) {
#if BN_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t raw[];
  __shared__ __align__(8) uint64_t full[kStages], empty[kStages], reduced;
  __shared__ TokenScale scales[2][2][kTokenBlock];
  // The compiler has to see that a warp does not diverge.
  const int tid = int(threadIdx.x), warp = __shfl_sync(kFullWarp, tid / 32, 0), lane = tid % 32;
  if (tid == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&full[i], 1 + kProducers);
      barrier_init(&empty[i], kConsumerWarps);
    }
    barrier_init(&reduced, kConsumerWarps);
    barrier_init_fence();
  }
  __syncthreads();
  const Ring ring = {raw + (1024 - shared_address(raw) % 1024) % 1024, full, empty};
  const Schedule<kCluster> schedule(call);
  if (warp >= kConsumerWarps) {
    give_registers<40>();
    produce(call, schedule, ring, &reduced, tid - kConsumers);
  } else {
    take_registers<232>();
    wait_for_dependencies();
    int* const sums = reinterpret_cast<int*>(ring.memory + kStages * kStage_bytes);
    Piece p;
    Place place;
    for (int round = 0; schedule.piece(round, p); ++round) {
      // Read long before they are wanted; two sets, as the other warps may still put the last piece out.
      const int token = min(p.token_block * kTokenBlock + tid % kTokenBlock, call.x.n_tokens - 1);
      const float inv = load1(call.x.inv_scales + token);
      const int sum = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token));
      const bool staggers = round == 0 && !p.shared;
      if (staggers && warp >= 4) lead_wait();
      int acc[2][64];
      accumulate(ring, p.k_end - p.k_begin, place, warp, lane, staggers && warp < 4, acc);
      if (kCluster > 1 && p.shared) {
        reduce<kCluster>(ring, tid, acc);
        __syncwarp();
        if (lane == 0) barrier_arrive(&reduced);
      }
      TokenScale* const mine = scales[round % 2][warp / 4];
      mine[tid % kTokenBlock] = {kMagic - sum, inv};
      // Not before: kernels that wait would crowd on the first multiprocessors with room for them.
      if (Piece next; !schedule.piece(round + 1, next)) launch_dependents();
      const int first = p.shared ? int(blockIdx.x) % kCluster : 0, step = p.shared ? kCluster : 1;
      put_out(call, p, sums, mine, warp, lane, first, step, acc);
    }
  }
#endif
}

// Clusters of that size that run at once; only speed depends on it.
template <int kCluster>
int most_clusters(const Launcher& launcher) {
  static const int n = [&] {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(unsigned(kCluster * (launcher.n_multiprocessors / kCluster)));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = kShared_bytes;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = kCluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int most = 0;
    (void)cudaFuncSetAttribute(wgmma_kernel<kCluster>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared_bytes);
    const cudaError_t error = cudaOccupancyMaxActiveClusters(&most, wgmma_kernel<kCluster>, &config);
    (void)cudaGetLastError();
    return error == cudaSuccess && most > 0 ? most : launcher.n_multiprocessors / kCluster;
  }();
  return n;
}

struct Plan {
  int cluster = 1, n_clusters = 1;
  double cost = 0;  // in column tiles of a block
};

Plan plan_of(const Launcher& launcher, const PromptProduct& call) {
  constexpr double kReducing = 4;  // as long as so many column tiles
  const int n_tiles = row_blocks(call) * ((call.x.n_tokens + kTokenBlock - 1) / kTokenBlock);
  const int k = call.x.n_col_tiles, most[4] = {launcher.n_multiprocessors, most_clusters<2>(launcher),
                                               most_clusters<3>(launcher), most_clusters<4>(launcher)};
  Plan best;
  for (int cluster = 1; cluster <= 4; ++cluster) {
    const int n_blocks = most[cluster - 1] * cluster;
    Plan plan{cluster, most[cluster - 1]};
    int n_whole = n_tiles / n_blocks, rest = n_tiles % n_blocks;
    const int n_shared = (rest + plan.n_clusters - 1) / plan.n_clusters;
    plan.cost = double(n_whole) * k + n_shared * (double(k) / cluster + (cluster > 1 ? kReducing : 0));
    if (n_whole == 0) plan.n_clusters = n_tiles < plan.n_clusters ? n_tiles : plan.n_clusters;
    if (cluster == 1 || plan.cost < best.cost) best = plan;
  }
  return best;
}

}  // namespace

bool hopper_code() {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, wgmma_kernel<1>);
  (void)cudaGetLastError();
  return error == cudaSuccess && attributes.ptxVersion >= 90;
}

cudaError_t prompt_wgmma(const Launcher& launcher, const PromptProduct& call) {
  const Plan plan = plan_of(launcher, call);
  const auto start = [&](auto kernel) {
    return launch_cluster(launcher, plan.cluster, dim3(unsigned(plan.n_clusters * plan.cluster)), dim3(kThreads),
                          kShared_bytes, kernel, call);
  };
  switch (plan.cluster) {
    case 2: return start(wgmma_kernel<2>);
    case 3: return start(wgmma_kernel<3>);
    case 4: return start(wgmma_kernel<4>);
    default: return start(wgmma_kernel<1>);
  }
}

}  // namespace bitnet::cuda
