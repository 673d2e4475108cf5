#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_block.cuh"
#include "kernels/cuda/wgmma.cuh"

// Products of many tokens on Hopper. Two warpgroups have kA times 64 rows each, unpack their codes in registers and
// multiply them with 128 tokens' activations, which one thread has copied to shared memory. While one warpgroup
// unpacks, the other keeps the tensor cores busy.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStage_bytes = kTokenBlock * kTileCols;
__host__ __device__ constexpr int stages(int a) { return a == 1 ? 5 : 8; }

template <int kA>
__global__ void __launch_bounds__(kThreads, kA == 1 ? 2 : 1) wgmma_kernel(const __grid_constant__ PromptProduct call) {
#if BN_HAS_WGMMA
  extern __shared__ __align__(1024) uint8_t raw[];
  constexpr int kStages = stages(kA);
  __shared__ __align__(8) uint64_t full[kStages], empty[kStages];
  __shared__ float inv_scales[kTokenBlock];
  __shared__ int sums[kTokenBlock];
  uint8_t* const memory = raw + (1024 - shared_address(raw) % 1024) % 1024;
  const bool gate = is_gate(call.epilogue);
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int n_col_tiles = call.x.n_col_tiles;
  if (tid == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&full[i], 1);
      barrier_init(&empty[i], 8);
    }
    barrier_init_fence();
  }
  __syncthreads();
  launch_dependents();
  const int8_t* const codes = call.x.codes + size_t(blockIdx.x) * n_col_tiles * kStage_bytes;
  const auto fetch = [&](int k) {
    if (k >= n_col_tiles) return;
    barrier_expect(&full[k % kStages], kStage_bytes);
    bulk_copy(memory + k % kStages * kStage_bytes, codes + size_t(k) * kStage_bytes, kStage_bytes, &full[k % kStages]);
  };

  const RowBlock block = row_block(call, int(blockIdx.y), gate ? 8 : 8 * kA);
  const Segment& first = call.segments[block.segment];
  int tile[kA];
  const uint4* from[kA];
  uint4 next[kA], after[kA];
#pragma unroll
  for (int a = 0; a < kA; ++a) {
    const Segment& s = gate && a == 1 ? call.segments[1] : first;
    tile[a] = block.tile + (gate ? warp : warp / 4 * 4 * kA + a * 4 + warp % 4);
    from[a] = s.tiles + size_t(min(tile[a], s.n_row_tiles - 1)) * n_col_tiles * 32 + lane;
    next[a] = __ldg(from[a]);
    after[a] = __ldg(from[a] + min(1, n_col_tiles - 1) * 32);
  }
  wait_for_dependencies();
  if (tid == 0) {
    for (int k = 0; k < kStages; ++k) fetch(k);
  }
  if (const int token = int(blockIdx.x) * kTokenBlock + tid; tid < kTokenBlock && token < call.x.n_tokens) {
    inv_scales[tid] = load1(call.x.inv_scales + token);
    sums[tid] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token));
  }
  __syncthreads();
  int acc[kA][64];
#pragma unroll
  for (int a = 0; a < kA; ++a) {
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[a][i] = 0;
  }
  for (int k = 0; k < n_col_tiles; ++k) {
    const int stage = k % kStages;
    uint32_t planes[kA][4][4];
#pragma unroll
    for (int a = 0; a < kA; ++a) {
      const uint32_t words[4] = {next[a].x, next[a].y, next[a].z, next[a].w};
#pragma unroll
      for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int p = 0; p < 4; ++p) planes[a][s][p] = words[s] >> (2 * p) & 0x03030303u;
      }
      next[a] = after[a];
      after[a] = __ldg(from[a] + min(k + 2, n_col_tiles - 1) * 32);
    }
    barrier_wait(&full[stage], uint32_t(k / kStages & 1));
    const uint64_t descriptor = swizzled_descriptor(shared_address(memory) + uint32_t(stage * kStage_bytes));
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int a = 0; a < kA; ++a) wgmma_u8s8(acc[a], planes[a][s], descriptor + uint64_t(2 * s));
    }
    wgmma_commit();
    wgmma_wait();
    // The planes may not change before this.
#pragma unroll
    for (int a = 0; a < kA; ++a) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        asm volatile("" ::"r"(planes[a][s][0]), "r"(planes[a][s][1]), "r"(planes[a][s][2]), "r"(planes[a][s][3]));
      }
    }
    if (lane == 0) barrier_arrive(&empty[stage]);
    // The stage before this one is free, or nearly: the other warpgroup is at most a product behind.
    if (tid == 0 && k > 0) {
      barrier_wait(&empty[(k - 1) % kStages], uint32_t((k - 1) / kStages & 1));
      fetch(k - 1 + kStages);
    }
  }

  // Four columns of tokens at a time: what is added to is read before anything is written.
  const bool adds = call.epilogue == Epilogue::kAdd;
#pragma unroll
  for (int group = 0; group < 4; ++group) {
    float before[kA][16];
    const auto each = [&](const auto& visit) {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int at = group * 16 + i, column = at / 4 * 8 + 2 * t + i % 2;
        const int token = int(blockIdx.x) * kTokenBlock + column;
        if (token >= call.x.n_tokens) continue;
        float* const out = first.out + size_t(token) * first.n_rows;
#pragma unroll
        for (int a = 0; a < (kA == 2 && gate ? 1 : kA); ++a) {
          const int row = tile[a] * 16 + g + i / 2 % 2 * 8;
          if (row < first.n_rows) visit(a, i, at, column, out[row]);
        }
      }
    };
    if (adds) each([&](int a, int i, int, int, const float& out) { before[a][i] = out; });
    each([&](int a, int i, int at, int column, float& out) {
      const float y = (float(acc[a][at] - sums[column]) * inv_scales[column]) * first.alpha;
      if (gate) {
        const float up = (float(acc[kA - 1][at] - sums[column]) * inv_scales[column]) * call.segments[1].alpha;
        out = gated(call.epilogue == Epilogue::kGateRelu2, y, up);
      } else {
        out = adds ? before[a][i] + y : y;
      }
    });
  }
#endif
}

template <int kA>
cudaError_t launch(const Launcher& launcher, const PromptProduct& call) {
  const dim3 grid(unsigned((call.x.n_tokens + kTokenBlock - 1) / kTokenBlock),
                  unsigned(n_row_blocks(call, is_gate(call.epilogue) ? 8 : 8 * kA)));
  return launch_kernel(launcher, grid, dim3(kThreads), size_t(stages(kA)) * kStage_bytes + 1024, wgmma_kernel<kA>,
                       call);
}

}  // namespace

bool hopper_code() {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, wgmma_kernel<1>);
  (void)cudaGetLastError();
  return error == cudaSuccess && attributes.ptxVersion >= 90;
}

cudaError_t prompt_wgmma(const Launcher& launcher, const PromptProduct& call) {
  return is_gate(call.epilogue) ? launch<2>(launcher, call) : launch<1>(launcher, call);
}

}  // namespace bitnet::cuda
