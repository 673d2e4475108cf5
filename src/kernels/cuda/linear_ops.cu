#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/tensor_core.cuh"

// Products for every shape; the steps that have to be fast have kernels of their own.
namespace bitnet::cuda {
namespace {

__device__ int weight_at(const TernaryWeights& w, int64_t row, int64_t col) {
  const CodePlace place = code_place(row, col, w.n_col_tiles);
  return int(w.words[place.word] >> place.shift & 3u) - 1;
}

// A warp: one row tile and eight tokens.
__global__ void ternary_mma_kernel(TernaryWeights w, CodeRows x, float* out) {
  const int lane = int(threadIdx.x % 32), g = lane / 4, t = lane % 4;
  const int64_t tile = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32, token0 = int64_t(blockIdx.y) * 8;
  if (tile >= w.n_row_tiles) return;
  const uint4* const tiles = reinterpret_cast<const uint4*>(w.words) + tile * w.n_col_tiles * 32 + lane;
  const int8_t* const codes = x.codes + (token0 + g) * x.stride + 4 * t;
  const bool token = token0 + g < x.n_rows;
  const auto load = [&](int64_t col) {
    return token && col < x.stride ? *reinterpret_cast<const uint32_t*>(codes + col) : 0u;
  };
  int acc[4] = {};
  for (int64_t k = 0; k < w.n_col_tiles; ++k) {
    const uint4 words = tiles[k * 32];
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) mma_codes(acc, word[s], load(k * 128 + s * 32), load(k * 128 + s * 32 + 16));
  }
  for (int i = 0; i < 4; ++i) {
    const int64_t row = tile * 16 + g + i / 2 * 8, at = token0 + 2 * t + i % 2;
    if (row >= w.n_rows || at >= x.n_rows) continue;
    out[at * w.n_rows + row] = (float((acc[i] >> (i / 2 * 2)) - x.sums[at]) * x.inv_scales[at]) * w.alpha;
  }
}

// A thread: one row and one token, a scale a group of columns (numerics.md 3).
__global__ void grouped_kernel(TernaryWeights w, CodeRows x, float* out) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, token = blockIdx.y;
  if (row >= w.n_rows) return;
  const int8_t* const q = x.codes + token * x.stride;
  const int64_t n_groups = w.n_cols / w.group_cols;
  float total = 0.0f;
  for (int64_t group = 0; group < n_groups; ++group) {
    int sum = 0;
    for (int64_t i = group * w.group_cols; i < (group + 1) * w.group_cols; ++i) sum += weight_at(w, row, i) * q[i];
    const float part = float(sum) * w.groups[row * n_groups + group];
    total = group == 0 ? part : total + part;
  }
  out[token * w.n_rows + row] = total * x.inv_scales[token];
}

// Half a warp: one row and one token, in the 16 lanes of a lane sum. Value(row, i) is the weight.
template <class Product>
__device__ void lane_products(int64_t n_rows, const Rows& x, float* out, float factor, const Product& product) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 16) + threadIdx.x / 16, token = blockIdx.y;
  const float* const in = x.data + token * x.n_cols;
  float lane = 0.0f;
  if (row < n_rows) {
#pragma unroll 4
    for (int64_t i = threadIdx.x % 16; i < x.n_cols; i += 16) lane += product(row, i, in[i]);
  }
  lane = fold_lanes(lane);
  if (row < n_rows && threadIdx.x % 16 == 0) out[token * n_rows + row] = lane * factor;
}

__global__ void ternary_float_kernel(TernaryWeights w, Rows x, float* out) {
  if (w.groups == nullptr) {
    lane_products(w.n_rows, x, out, w.alpha,
                  [&](int64_t row, int64_t i, float v) { return float(weight_at(w, row, i)) * v; });
  } else {
    const int64_t n_groups = w.n_cols / w.group_cols;
    lane_products(w.n_rows, x, out, 1.0f, [&](int64_t row, int64_t i, float v) {
      return (float(weight_at(w, row, i)) * w.groups[row * n_groups + i / w.group_cols]) * v;
    });
  }
}

template <TableType kType>
__global__ void float_kernel(FloatTable w, Rows x, float* out) {
  lane_products(w.n_rows, x, out, 1.0f,
                [&](int64_t row, int64_t i, float v) { return widen(kType, w.data + row * w.row_bytes, i) * v; });
}

template <TableType kType>
void launch_float(cudaStream_t stream, const FloatTable& w, Rows x, float* out) {
  float_kernel<kType><<<dim3(unsigned(n_tiles(w.n_rows, 16)), unsigned(x.n_rows)), 256, 0, stream>>>(w, x, out);
}

}  // namespace

void ternary_linear(cudaStream_t stream, const TernaryWeights& w, const CodeRows& x, float* out) {
  if (w.groups != nullptr) {
    grouped_kernel<<<dim3(unsigned(n_tiles(w.n_rows, 128)), unsigned(x.n_rows)), 128, 0, stream>>>(w, x, out);
  } else {
    const dim3 grid(unsigned(n_tiles(w.n_row_tiles, 4)), unsigned(n_tiles(x.n_rows, 8)));
    ternary_mma_kernel<<<grid, 128, 0, stream>>>(w, x, out);
  }
}

void ternary_linear(cudaStream_t stream, const TernaryWeights& w, Rows x, float* out) {
  ternary_float_kernel<<<dim3(unsigned(n_tiles(w.n_rows, 16)), unsigned(x.n_rows)), 256, 0, stream>>>(w, x, out);
}

void float_linear(cudaStream_t stream, const FloatTable& w, Rows x, float* out) {
  switch (w.type) {
    case TableType::kF32: return launch_float<TableType::kF32>(stream, w, x, out);
    case TableType::kF16: return launch_float<TableType::kF16>(stream, w, x, out);
    case TableType::kBF16: return launch_float<TableType::kBF16>(stream, w, x, out);
    case TableType::kQ8_0: return launch_float<TableType::kQ8_0>(stream, w, x, out);
    case TableType::kQ4_0: return launch_float<TableType::kQ4_0>(stream, w, x, out);
    case TableType::kQ4_K: return launch_float<TableType::kQ4_K>(stream, w, x, out);
    case TableType::kQ6_K: return launch_float<TableType::kQ6_K>(stream, w, x, out);
    case TableType::kI8: break;
  }
}

}  // namespace bitnet::cuda
