#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/pair_sum.cuh"

// Operations on each token alone.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void pack_tiles_kernel(const uint8_t* codes, int64_t n_rows, int64_t n_cols, int64_t n_words,
                                  uint32_t* words) {
  const int64_t n_col_tiles = n_tiles(n_cols, kTileCols), step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n_words; i += step) {
    words[i] = pack_word(codes, n_rows, n_cols, n_col_tiles, i);
  }
}

__global__ void embed_kernel(FloatTable table, const int32_t* ids, float* out) {
  const uint8_t* const row = table.data + int64_t(ids[blockIdx.x]) * table.row_bytes;
  widen_row(table, row, out + blockIdx.x * table.n_cols);
}

// numerics.md 5. A warp sums a block of 256 squares after the other.
__global__ void rms_norm_kernel(Rows x, const float* weight, float eps, float* out) {
  extern __shared__ float sums[];
  const float* const in = x.data + blockIdx.x * x.n_cols;
  const int n_cols = int(x.n_cols), n_blocks = (n_cols + kPairBlock - 1) / kPairBlock, lane = int(threadIdx.x) % 32;
  for (int block = int(threadIdx.x) / 32; block < n_blocks; block += kThreads / 32) {
    float eight[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = block * kPairBlock + lane * 8 + i;
      eight[i] = at < n_cols ? in[at] : 0.0f;
    }
    const float sum = warp_pair_sum(eight_squares(eight));
    if (lane == 0) sums[block] = sum;
  }
  __syncthreads();
  float sum = 0.0f;
  for (int block = 0; block < n_blocks; ++block) sum += sums[block];
  const float r = norm_factor(sum, n_cols, eps);
  for (int64_t i = threadIdx.x; i < x.n_cols; i += blockDim.x) {
    out[blockIdx.x * x.n_cols + i] = (in[i] * r) * weight[i];
  }
}

__device__ float row_absmax(const float* x, int64_t n_cols) {
  __shared__ float shared[kThreads / 32];
  float absmax = 0.0f;
  for (int64_t i = threadIdx.x; i < n_cols; i += blockDim.x) absmax = fmaxf(absmax, fabsf(x[i]));
  return block_max(absmax, shared);
}

__global__ void quantize_kernel(Rows x, CodeRows out) {
  __shared__ int shared[kThreads / 32];
  const float* const in = x.data + blockIdx.x * x.n_cols;
  int8_t* const q = out.codes + blockIdx.x * out.stride;
  const float scale = quantizing_scale(row_absmax(in, x.n_cols));
  int sum = 0;
  for (int64_t i = threadIdx.x; i < out.stride; i += blockDim.x) {
    const int8_t code = i < x.n_cols ? int8_t(quantized(in[i], scale)) : int8_t(0);
    q[i] = code;
    sum += code;
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x > 0) return;
  out.inv_scales[blockIdx.x] = 1.0f / scale;
  out.sums[blockIdx.x] = sum;
}

__global__ void fake_quantize_kernel(Rows x, float* out) {
  const float* const in = x.data + blockIdx.x * x.n_cols;
  const float scale = quantizing_scale(row_absmax(in, x.n_cols)), inv_scale = 1.0f / scale;
  for (int64_t i = threadIdx.x; i < x.n_cols; i += blockDim.x) {
    out[blockIdx.x * x.n_cols + i] = float(int8_t(quantized(in[i], scale))) * inv_scale;
  }
}

__global__ void rope_kernel(Rows x, int64_t head_dim, Rope table, int64_t first_position) {
  float* const row = x.data + blockIdx.x * x.n_cols;
  const int64_t at = (first_position + blockIdx.x) * table.n_pairs, n = x.n_cols / head_dim * table.n_pairs;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const int64_t pair = i % table.n_pairs;
    float* const h = row + i / table.n_pairs * head_dim + pair;
    const float c = table.cos[at + pair], s = table.sin[at + pair], a = h[0], b = h[table.n_pairs];
    h[0] = a * c - b * s;
    h[table.n_pairs] = b * c + a * s;
  }
}

__global__ void store_kv_kernel(const float* k, const float* v, Cache cache, int64_t first_position) {
  const int64_t n_cols = cache.n_kv_heads * cache.head_dim, d = cache.head_dim;
  const float* const from = (blockIdx.y == 0 ? k : v) + blockIdx.x * n_cols;
  uint8_t* const plane = blockIdx.y == 0 ? cache.k : cache.v;
  const int64_t unit = cache.type == TableType::kQ8_0 ? 32 : 1;
  for (int64_t i = threadIdx.x * unit; i < n_cols; i += blockDim.x * unit) {
    uint8_t* const row = plane + cache_row(cache, i / d, first_position + blockIdx.x) * cache.row_bytes;
    if (cache.type == TableType::kQ8_0) {
      store_q8_0(from + i, row + i % d / 32 * 34);
    } else if (cache.type == TableType::kF16) {
      reinterpret_cast<__half*>(row)[i % d] = __float2half_rn(from[i]);
    } else {
      reinterpret_cast<float*>(row)[i % d] = from[i];
    }
  }
}

__global__ void gate_kernel(bool relu2, const float* gate, const float* up, int64_t n, float* out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = gated(relu2, gate[i], up[i]);
}

__global__ void add_kernel(const float* x, int64_t n, float* y) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = y[i] + x[i];
}

unsigned n_blocks(int64_t n) { return unsigned((n + kThreads - 1) / kThreads); }

}  // namespace

void pack_tiles(cudaStream_t stream, const uint8_t* codes, int64_t n_rows, int64_t n_cols, uint32_t* words) {
  const int64_t n_words = n_tiles(n_rows, kTileRows) * n_tiles(n_cols, kTileCols) * kTileWords;
  const unsigned blocks = min(n_blocks(n_words), 65536u);
  pack_tiles_kernel<<<blocks, kThreads, 0, stream>>>(codes, n_rows, n_cols, n_words, words);
}

void embed(cudaStream_t stream, const FloatTable& table, const int32_t* ids, Rows out) {
  embed_kernel<<<unsigned(out.n_rows), kThreads, 0, stream>>>(table, ids, out.data);
}

void rms_norm(cudaStream_t stream, Rows x, const float* weight, float eps, float* out) {
  const size_t sums_bytes = size_t((x.n_cols + kPairBlock - 1) / kPairBlock) * sizeof(float);
  rms_norm_kernel<<<unsigned(x.n_rows), kThreads, sums_bytes, stream>>>(x, weight, eps, out);
}

void quantize(cudaStream_t stream, Rows x, const CodeRows& out) {
  quantize_kernel<<<unsigned(x.n_rows), kThreads, 0, stream>>>(x, out);
}

void fake_quantize(cudaStream_t stream, Rows x, float* out) {
  fake_quantize_kernel<<<unsigned(x.n_rows), kThreads, 0, stream>>>(x, out);
}

void rope(cudaStream_t stream, Rows x, int64_t head_dim, const Rope& table, int64_t first_position) {
  rope_kernel<<<unsigned(x.n_rows), kThreads, 0, stream>>>(x, head_dim, table, first_position);
}

void store_kv(cudaStream_t stream, const float* k, const float* v, int64_t n_tokens, const Cache& cache,
              int64_t first_position) {
  store_kv_kernel<<<dim3(unsigned(n_tokens), 2), kThreads, 0, stream>>>(k, v, cache, first_position);
}

void gate(cudaStream_t stream, bool relu2, const float* gate, const float* up, int64_t n, float* out) {
  gate_kernel<<<n_blocks(n), kThreads, 0, stream>>>(relu2, gate, up, n, out);
}

void add(cudaStream_t stream, const float* x, int64_t n, float* y) {
  add_kernel<<<n_blocks(n), kThreads, 0, stream>>>(x, n, y);
}

}  // namespace bitnet::cuda
