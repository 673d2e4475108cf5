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
constexpr int kThreads = kConsumers + 128;  // registers move between warpgroups only
constexpr int kRowTiles = 16;  // of a tile
constexpr int kCodeBytes = kTokenBlock * kTileCols;
constexpr int kStage_bytes = kCodeBytes + kRowTiles * kTileBytes;
constexpr int kStages = 8;
constexpr size_t kShared_bytes = size_t(kStages) * kStage_bytes + 1024;
constexpr int kGroups = kTokenBlock / 8;  // of eight tokens, the columns of an accumulator's four registers

// A tile, or a block's share of one.
struct Piece {
  int token_block, row_block, k_begin, k_end;
  bool shared;
};

// What this block does in each round. Whole tiles come first; the rest is shared by clusters.
template <int kCluster>
struct Schedule {
  int n_tiles, n_token_blocks, n_col_tiles, n_whole;
  __device__ explicit Schedule(const PromptProduct& call, int n_row_blocks)
      : n_token_blocks((call.x.n_tokens + kTokenBlock - 1) / kTokenBlock), n_col_tiles(call.x.n_col_tiles) {
    n_tiles = n_row_blocks * n_token_blocks;
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

// Puts sums of eight tokens out, four registers of each of the two accumulators.
class Output {
 public:
  __device__ Output(const PromptProduct& call, const Piece& p, int warp, int lane)
      : call_(call), gate_(is_gate(call.epilogue)), first_token_(p.token_block * kTokenBlock + 2 * (lane % 4)) {
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      const RowTile at = row_tile(call, gate_, p.row_block, warp / 4, a, warp % 4);
      const Segment& s = call.segments[at.segment];
      const int row = at.tile * kTileRows + lane / 4;
      n_rows_[a] = s.n_rows;
      alpha_[a] = s.alpha;
      out_[a] = s.out + row;
      n_valid_[a] = row + 8 < s.n_rows ? 2 : row < s.n_rows ? 1 : 0;
    }
  }
  // What is added to, read long before it is wanted.
  __device__ void read(int group, float (&before)[8]) const {
    each(group, [&](int i, int, float& out) { before[i] = load1(&out); });
  }
  __device__ void write(int group, const int (&sums)[8], const float (&before)[8]) const {
    const int token = first_token_ + group * 8;
    if (token >= call_.x.n_tokens) return;
    const float2 scales = load2(call_.x.inv_scales + token);
    const float2 raw = load2(reinterpret_cast<const float*>(call_.x.sums) + token);
    const float inv[2] = {scales.x, scales.y};
    const int less[2] = {kMagic - __float_as_int(raw.x), kMagic - __float_as_int(raw.y)};
    // Exact: the sums are far from 2^22.
    const auto value = [&](int i) {
      return ((__int_as_float(sums[i] + less[i % 2]) - __int_as_float(kMagic)) * inv[i % 2]) * alpha_[i / 4];
    };
    each(group, [&](int i, int, float& out) {
      if (gate_) {
        out = gated(call_.epilogue == Epilogue::kGateRelu2, value(i), value(i + 4));
      } else {
        out = call_.epilogue == Epilogue::kAdd ? before[i] + value(i) : value(i);
      }
    });
  }

 private:
  static constexpr int kMagic = 0x4b400000;  // 1.5 * 2^23 as float32
  static __device__ float2 load2(const float* p) {
    float2 v;
    asm volatile("ld.global.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p) : "memory");
    return v;
  }
  template <class Visit>
  __device__ void each(int group, const Visit& visit) const {
    const int token = first_token_ + group * 8;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int a = i / 4, half = i / 2 % 2;
      if ((a == 1 && gate_) || token + i % 2 >= call_.x.n_tokens || half >= n_valid_[a]) continue;
      visit(i, a, out_[a][size_t(token + i % 2) * n_rows_[a] + 8 * half]);
    }
  }

  const PromptProduct& call_;
  bool gate_;
  int first_token_;
  float* out_[2];
  int n_rows_[2], n_valid_[2];
  float alpha_[2];
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
struct Ring {
  uint8_t* memory;
  uint64_t *full, *empty;
  __device__ uint8_t* codes(int n) const { return memory + n % kStages * kStage_bytes; }
  __device__ uint8_t* weights(int n) const { return codes(n) + kCodeBytes; }
  __device__ void wait_full(int n) const { barrier_wait(full + n % kStages, uint32_t(n / kStages & 1)); }
  __device__ void wait_empty(int n) const {
    if (n >= kStages) barrier_wait(empty + n % kStages, uint32_t((n / kStages - 1) & 1));
  }
  __device__ void release(int n, int lane) const {
    if (lane == 0) barrier_arrive(empty + n % kStages);
  }
};

// The codes of weights are there before the kernel in front of this one ends.
template <int kCluster>
__device__ void produce(const PromptProduct& call, const Schedule<kCluster>& schedule, const Ring& ring,
                        uint64_t* reduced, int lane) {
  const bool gate = is_gate(call.epilogue);
  Piece p;
  int n = 0, n_shared = 0;
  for (int round = 0; schedule.piece(round, p); ++round) {
    const uint8_t* weights = nullptr;
    if (lane < kRowTiles) {
      const RowTile at = row_tile(call, gate, p.row_block, lane / 8, lane / 4 % 2, lane % 4);
      const Segment& s = call.segments[at.segment];  // tiles beyond the last repeat it and are not put out
      weights = reinterpret_cast<const uint8_t*>(s.tiles) +
                size_t(min(at.tile, s.n_row_tiles - 1)) * schedule.n_col_tiles * kTileBytes;
    }
    const int8_t* const codes = call.x.codes + size_t(p.token_block) * schedule.n_col_tiles * kCodeBytes;
    const auto fetch_weights = [&](int k, int to) {
      if (lane == 0) barrier_expect(ring.full + to % kStages, kStage_bytes);
      if (lane < kRowTiles) {
        bulk_copy(ring.weights(to) + lane * kTileBytes, weights + size_t(k) * kTileBytes, kTileBytes,
                  ring.full + to % kStages);
      }
    };
    const auto fetch_codes = [&](int k, int to) {
      if (lane == 0) bulk_copy(ring.codes(to), codes + size_t(k) * kCodeBytes, kCodeBytes, ring.full + to % kStages);
    };
    if (n_shared > 0) barrier_wait(reduced, uint32_t((n_shared - 1) & 1));
    int k = p.k_begin;
    if (round == 0) {
      const int n_first = min(kStages, p.k_end - p.k_begin);
      for (int i = 0; i < n_first; ++i) fetch_weights(k + i, i);
      wait_for_dependencies();
      for (int i = 0; i < n_first; ++i) fetch_codes(k + i, i);
      k += n_first;
      n += n_first;
    }
    for (; k < p.k_end; ++k, ++n) {
      ring.wait_empty(n);
      fetch_weights(k, n);
      fetch_codes(k, n);
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

// Sums of the column tiles of a piece. A warpgroup always has a group of products on its way while it unpacks the next.
__device__ inline void accumulate(const Ring& ring, const Piece& p, int& n, int warp, int lane, int (&acc)[2][64]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[a][i] = 0;
  }
  pin(acc);
  if (p.k_begin == p.k_end) return;
  uint4 words[2];
  uint32_t low[2][2][4], high[2][2][4];
  const auto load = [&](int stage) {
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      words[a] = reinterpret_cast<const uint4*>(ring.weights(stage))[((warp / 4 * 2 + a) * 4 + warp % 4) * 32 + lane];
    }
  };
  ring.wait_full(n);
  load(n);
  unpack(words, 0, low);
  const int end = n + p.k_end - p.k_begin;
  for (int first = n; n < end; ++n) {
    const uint64_t descriptor = swizzled_descriptor(shared_address(ring.codes(n)));
    multiply(acc, low, descriptor);
    wgmma_wait<1>();
    if (n > first) {
      pin(high);
      ring.release(n - 1, lane);
    }
    unpack(words, 1, high);
    multiply(acc, high, descriptor + 4);
    if (n + 1 < end) {
      ring.wait_full(n + 1);
      load(n + 1);
    }
    wgmma_wait<1>();
    pin(low);
    unpack(words, 0, low);
  }
  wgmma_wait<0>();
  pin(high);
  pin(acc);
  ring.release(n - 1, lane);
}

// The blocks of a cluster send each other what the others put out: group u of tokens is put out by block u % kCluster.
template <int kCluster>
__device__ inline void reduce(const PromptProduct& call, const Piece& p, const Ring& ring, int tid,
                              const int (&acc)[2][64]) {
  constexpr int kMine = (kGroups + kCluster - 1) / kCluster, kTogether = 4;
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
  const Output output(call, p, tid / 32, tid % 32);
  float before[kTogether][8];
  const auto read = [&](int first) {
#pragma unroll
    for (int j = first; j < first + kTogether; ++j) {
      if (j < kMine && j * kCluster + rank < kGroups) output.read(j * kCluster + rank, before[j % kTogether]);
    }
  };
  const bool adds = call.epilogue == Epilogue::kAdd;
  if (adds) read(0);
  cluster_wait();
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    if (j > 0 && j % kTogether == 0 && adds) read(j);
    const int u = j * kCluster + rank;
    if (u >= kGroups) continue;
    int sums[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sums[i] = 0;
#pragma unroll
      for (int r = 0; r < kCluster; ++r) {
        if (r == rank && j * kCluster + r < kGroups) sums[i] = acc[i / 4][4 * (j * kCluster + r) % 64 + i % 4];
      }
    }
#pragma unroll
    for (int sender = 0; sender < kCluster - 1; ++sender) {
#pragma unroll
      for (int a = 0; a < 2; ++a) {
        const int4 v = *place(sender, j, a);
        sums[4 * a] += v.x;
        sums[4 * a + 1] += v.y;
        sums[4 * a + 2] += v.z;
        sums[4 * a + 3] += v.w;
      }
    }
    output.write(u, sums, before[j % kTogether]);
  }
}

__device__ inline void put_out(const PromptProduct& call, const Piece& p, int tid, const int (&acc)[2][64]) {
  constexpr int kTogether = 4;
  const Output output(call, p, tid / 32, tid % 32);
#pragma unroll
  for (int first = 0; first < kGroups; first += kTogether) {
    float before[kTogether][8];
    if (call.epilogue == Epilogue::kAdd) {
#pragma unroll
      for (int j = 0; j < kTogether; ++j) output.read(first + j, before[j]);
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      int sums[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[i] = acc[i / 4][4 * (first + j) + i % 4];
      output.write(first + j, sums, before[j]);
    }
  }
}
#endif

template <int kCluster>
__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(const __grid_constant__ PromptProduct call) {
#if BN_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t raw[];
  __shared__ __align__(8) uint64_t full[kStages], empty[kStages], reduced;
  // The compiler has to see that a warp does not diverge.
  const int tid = int(threadIdx.x), warp = __shfl_sync(kFullWarp, tid / 32, 0), lane = tid % 32;
  if (tid == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&full[i], 1);
      barrier_init(&empty[i], kConsumerWarps);
    }
    barrier_init(&reduced, kConsumerWarps);
    barrier_init_fence();
  }
  __syncthreads();
  launch_dependents();
  const Ring ring = {raw + (1024 - shared_address(raw) % 1024) % 1024, full, empty};
  const Schedule<kCluster> schedule(call, row_blocks(call));
  if (warp >= kConsumerWarps) {
    give_registers<24>();
    if (warp == kConsumerWarps) produce(call, schedule, ring, &reduced, lane);
  } else {
    take_registers<240>();
    wait_for_dependencies();
    Piece p;
    int n = 0;
    for (int round = 0; schedule.piece(round, p); ++round) {
      int acc[2][64];
      accumulate(ring, p, n, warp, lane, acc);
      if (kCluster > 1 && p.shared) {
        reduce<kCluster>(call, p, ring, tid, acc);
        __syncwarp();
        if (lane == 0) barrier_arrive(&reduced);
      } else {
        put_out(call, p, tid, acc);
      }
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
