#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/prompt_output.cuh"
#include "kernels/cuda/prompt_pipeline.cuh"

// Products of many tokens on Hopper. One block a multiprocessor works through tiles of 256 rows and 128 tokens. One
// warpgroup copies codes of weights and activations to a ring in shared memory; two others have 128 of the rows each,
// unpack their weights in registers and multiply. Where there are fewer tiles than blocks, or too few for the
// last round, the blocks of a cluster share a tile: each takes a part of the columns, and integer sums go through
// shared memory to the block that puts a part of the tokens out.
namespace bitnet::cuda {
namespace {

using namespace tiles;

#if BN_HAS_WGMMA
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
        proxy_fence();
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
