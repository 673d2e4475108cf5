#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/cuda/row_block.cuh"
#include "kernels/cuda/tensor_core.cuh"

// Products of many tokens with mma.sync. A block has 8 row tiles, two a warp, and 128 tokens, half of them a warp; with
// a gate the two tiles are the same rows of both segments.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStages = 4;
constexpr int kStage_bytes = kTokenBlock * kTileCols;

__global__ void __launch_bounds__(kThreads, 2) prompt_product_kernel(const __grid_constant__ PromptProduct call) {
  extern __shared__ __align__(128) uint8_t memory[];
  const bool gate = is_gate(call.epilogue);
  const int tid = int(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int row_warp = warp % 4, token_warp = warp / 4, n_col_tiles = call.x.n_col_tiles;
  const RowBlock block = row_block(call, int(blockIdx.y), gate ? 4 : 8);
  const Segment& first = call.segments[block.segment];
  const Segment& second = gate ? call.segments[1] : first;
  const int tile0 = block.tile + (gate ? row_warp : row_warp * 2), tile1 = gate ? tile0 : tile0 + 1;
  // Tiles beyond the last are computed from the last and not put out.
  const auto tiles_of = [&](const Segment& s, int tile) {
    return s.tiles + size_t(min(tile, s.n_row_tiles - 1)) * n_col_tiles * 32 + lane;
  };
  const uint4* const from0 = tiles_of(first, tile0);
  const uint4* const from1 = tiles_of(second, tile1);
  uint4 w0 = __ldg(from0), w1 = __ldg(from1);
  launch_dependents();
  wait_for_dependencies();
  const int8_t* const codes = call.x.codes + size_t(blockIdx.x) * n_col_tiles * kStage_bytes;
  const auto fetch = [&](int k) {
    if (k < n_col_tiles) {
      for (int i = tid; i < kStage_bytes / 16; i += kThreads) {
        async_copy16(memory + k % kStages * kStage_bytes + i * 16, codes + size_t(k) * kStage_bytes + i * 16);
      }
    }
    async_commit();
  };
  for (int k = 0; k < kStages - 1; ++k) fetch(k);

  __shared__ float inv_scales[kTokenBlock];
  __shared__ int sums[kTokenBlock];
  if (const int token = int(blockIdx.x) * kTokenBlock + tid; tid < kTokenBlock && token < call.x.n_tokens) {
    inv_scales[tid] = load1(call.x.inv_scales + token);
    sums[tid] = __float_as_int(load1(reinterpret_cast<const float*>(call.x.sums) + token));
  }
  int acc[2][8][4] = {};
  for (int k = 0; k < n_col_tiles; ++k) {
    async_wait<kStages - 2>();
    __syncthreads();
    fetch(k + kStages - 1);
    const uint32_t words[2][4] = {{w0.x, w0.y, w0.z, w0.w}, {w1.x, w1.y, w1.z, w1.w}};
    if (k + 1 < n_col_tiles) {
      w0 = __ldg(from0 + (k + 1) * 32);
      w1 = __ldg(from1 + (k + 1) * 32);
    }
    const uint32_t stage = shared_address(memory) + uint32_t(k % kStages * kStage_bytes);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const uint32_t u0 = words[0][s], u1 = words[1][s];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = token_warp * 64 + j * 16 + lane / 16 * 8 + lane % 8, piece = s * 2 + lane / 8 % 2;
        uint32_t b0, b1, b2, b3;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(b0), "=r"(b1), "=r"(b2), "=r"(b3)
                     : "r"(stage + uint32_t(row * 128 + ((piece ^ (row & 7)) << 4)))
                     : "memory");
        mma_codes(acc[0][2 * j], u0, b0, b1);
        mma_codes(acc[1][2 * j], u1, b0, b1);
        mma_codes(acc[0][2 * j + 1], u0, b2, b3);
        mma_codes(acc[1][2 * j + 1], u1, b2, b3);
      }
    }
  }

  const auto value = [&](int sum, int half, float inv_scale, int codes_sum, float alpha) {
    return (float((sum >> (2 * half)) - codes_sum) * inv_scale) * alpha;
  };
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int token = int(blockIdx.x) * kTokenBlock + token_warp * 64 + j * 8 + 2 * t + e;
      if (token >= call.x.n_tokens) continue;
      const float inv_scale = inv_scales[token % kTokenBlock];
      const int codes_sum = sums[token % kTokenBlock];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = 2 * half + e;
        if (gate) {
          const int row = tile0 * 16 + g + 8 * half;
          if (row >= first.n_rows) continue;
          first.out[size_t(token) * first.n_rows + row] = gated(
              call.epilogue == Epilogue::kGateRelu2, value(acc[0][j][at], half, inv_scale, codes_sum, first.alpha),
              value(acc[1][j][at], half, inv_scale, codes_sum, second.alpha));
          continue;
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row = (tile0 + i) * 16 + g + 8 * half;
          if (row >= first.n_rows) continue;
          float* const out = first.out + size_t(token) * first.n_rows + row;
          const float y = value(acc[i][j][at], half, inv_scale, codes_sum, first.alpha);
          *out = call.epilogue == Epilogue::kAdd ? *out + y : y;
        }
      }
    }
  }
}

}  // namespace

cudaError_t prompt_mma(const Launcher& launcher, const PromptProduct& call) {
  const dim3 grid(unsigned((call.x.n_tokens + kTokenBlock - 1) / kTokenBlock),
                  unsigned(n_row_blocks(call, is_gate(call.epilogue) ? 4 : 8)));
  return launch_kernel(launcher, grid, dim3(kThreads), size_t(kStages) * kStage_bytes, prompt_product_kernel, call);
}

}  // namespace bitnet::cuda
