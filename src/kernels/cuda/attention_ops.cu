#include "kernels/cuda/device_math.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

// numerics.md 8 in its order: a half warp a score, a half warp for the sum, a thread a value of the output. A block
// does one token of one head after the other.
__global__ void attention_kernel(Rows q, Cache cache, int64_t first_position, float* all_scores, float* out) {
  __shared__ float shared[kThreads / 32];
  __shared__ float shared_inverse;
  float* const scores = all_scores + blockIdx.x * cache.n_positions;
  const int64_t d = cache.head_dim, n_heads = q.n_cols / d, heads_per_kv = n_heads / cache.n_kv_heads;
  const float scale = 1.0f / sqrtf(float(d));
  for (int64_t item = blockIdx.x; item < q.n_rows * n_heads; item += gridDim.x) {
    const int64_t token = item / n_heads, head = item % n_heads, n_seen = first_position + token + 1;
    const float* const query = q.data + token * q.n_cols + head * d;
    const auto row = [&](const uint8_t* plane, int64_t p) {
      return plane + cache_row(cache, head / heads_per_kv, p) * cache.row_bytes;
    };
    float largest = -INFINITY;
    const int64_t n_rounds = (n_seen + kThreads / 16 - 1) / (kThreads / 16);
    for (int64_t round = 0; round < n_rounds; ++round) {
      const int64_t p = round * (kThreads / 16) + threadIdx.x / 16;
      float lane = 0.0f;
      if (p < n_seen) {
        const uint8_t* const key = row(cache.k, p);
        for (int64_t i = threadIdx.x % 16; i < d; i += 16) lane += widen(cache.type, key, i) * query[i];
      }
      const float score = fold_lanes(lane) * scale;
      if (p < n_seen && threadIdx.x % 16 == 0) {
        scores[p] = score;
        largest = spec_max(score, largest);
      }
    }
    const float m = block_max(largest, shared);
    for (int64_t p = threadIdx.x; p < n_seen; p += kThreads) scores[p] = spec_exp(scores[p] - m);
    __syncthreads();
    if (threadIdx.x < 32) {
      float lane = 0.0f;
      for (int64_t p = threadIdx.x % 16; p < n_seen; p += 16) lane += scores[p];
      lane = fold_lanes(lane);
      if (threadIdx.x == 0) shared_inverse = 1.0f / lane;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < d; i += kThreads) {
      float sum = 0.0f;
      for (int64_t tile = 0; tile < n_seen; tile += kValueTile) {
        float part = 0.0f;
        for (int64_t p = tile; p < min(tile + int64_t{kValueTile}, n_seen); ++p) {
          part += scores[p] * widen(cache.type, row(cache.v, p), i);
        }
        sum += part;
      }
      out[token * q.n_cols + head * d + i] = sum * shared_inverse;
    }
    __syncthreads();
  }
}

}  // namespace

void attention(cudaStream_t stream, Rows q, const Cache& cache, int64_t first_position, float* scores, float* out) {
  const unsigned n_blocks = unsigned(min(q.n_rows * (q.n_cols / cache.head_dim), int64_t{kAttentionBlocks}));
  attention_kernel<<<n_blocks, kThreads, 0, stream>>>(q, cache, first_position, scores, out);
}

}  // namespace bitnet::cuda
