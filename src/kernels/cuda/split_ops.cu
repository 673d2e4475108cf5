#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/split_ops.h"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 4 * kThreads;  // of a block

__global__ void embed_share_kernel(FloatTable table, int64_t first_row, const int32_t* ids, float* out) {
  const int64_t row = ids[blockIdx.x] - first_row;
  if (row < 0 || row >= table.n_rows) return;
  widen_row(table, table.data + row * table.row_bytes, out + blockIdx.x * table.n_cols);
}

__global__ void pick_rows_kernel(const float* parts, const __grid_constant__ Shares shares, const int32_t* ids,
                                 Rows out) {
  const int64_t id = ids[blockIdx.x];
  int rank = 0;
  while (rank + 1 < shares.n_ranks && id >= shares.first[rank + 1]) ++rank;
  const float* const from = parts + (rank * out.n_rows + blockIdx.x) * out.n_cols;
  for (int64_t i = threadIdx.x; i < out.n_cols; i += kThreads) out.data[blockIdx.x * out.n_cols + i] = from[i];
}

// Blocks in z: the ranks.
__global__ void join_columns_kernel(const float* parts, int64_t part_floats, const __grid_constant__ Shares shares,
                                    bool adds, float* out) {
  const int64_t first = shares.first[blockIdx.z], width = shares.first[blockIdx.z + 1] - first;
  const float* const from = parts + blockIdx.z * part_floats + blockIdx.y * width;
  float* const to = out + blockIdx.y * shares.first[shares.n_ranks] + first;
  const int64_t begin = int64_t(blockIdx.x) * kColumns + threadIdx.x,
                end = min(width, int64_t(blockIdx.x + 1) * kColumns);
  for (int64_t i = begin; i < end; i += kThreads) to[i] = adds ? to[i] + from[i] : from[i];
}

}  // namespace

void embed_share(cudaStream_t stream, const FloatTable& table, int64_t first_row, const int32_t* ids, Rows out) {
  embed_share_kernel<<<unsigned(out.n_rows), kThreads, 0, stream>>>(table, first_row, ids, out.data);
}

void pick_rows(cudaStream_t stream, const float* parts, const Shares& shares, const int32_t* ids, Rows out) {
  pick_rows_kernel<<<unsigned(out.n_rows), kThreads, 0, stream>>>(parts, shares, ids, out);
}

void join_columns(cudaStream_t stream, const float* parts, int64_t part_floats, const Shares& shares, int64_t n_rows,
                  bool adds, float* out) {
  int64_t widest = 0;
  for (int rank = 0; rank < shares.n_ranks; ++rank) {
    const int64_t width = shares.first[rank + 1] - shares.first[rank];
    widest = width > widest ? width : widest;
  }
  const dim3 grid(unsigned((widest + kColumns - 1) / kColumns), unsigned(n_rows), unsigned(shares.n_ranks));
  join_columns_kernel<<<grid, kThreads, 0, stream>>>(parts, part_floats, shares, adds, out);
}

}  // namespace bitnet::cuda
