#include "kernels/cuda/best_token.cuh"
#include "kernels/cuda/normed_row.cuh"

// The ends of a token's step: embedding, and the head with the choice of the best token.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    token_embedding_kernel(const __grid_constant__ FloatTable table, const StepControl* control, float* x) {
  launch_dependents();
  wait_for_dependencies();
  const uint8_t* const row = table.data + int64_t(control->token) * table.row_bytes;
  widen_row(table, row, x);
}

template <TableType kType>
struct Eight;  // eight consecutive values of a row
template <>
struct Eight<TableType::kF16> {
  static constexpr int kBytes = 16;
  uint4 raw;
  __device__ void load(const uint8_t* p) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                 : "l"(p));
  }
  __device__ float at(int i) const {
    const uint32_t word = i < 2 ? raw.x : i < 4 ? raw.y : i < 6 ? raw.z : raw.w;
    return __half2float(__ushort_as_half((unsigned short)(i % 2 == 0 ? word & 0xffffu : word >> 16)));
  }
};
template <>
struct Eight<TableType::kBF16> : Eight<TableType::kF16> {
  __device__ float at(int i) const {
    const uint32_t word = i < 2 ? raw.x : i < 4 ? raw.y : i < 6 ? raw.z : raw.w;
    return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
  }
};
template <>
struct Eight<TableType::kF32> {
  static constexpr int kBytes = 32;
  float4 low, high;
  __device__ void load(const uint8_t* p) {
    low = __ldg(reinterpret_cast<const float4*>(p));
    high = __ldg(reinterpret_cast<const float4*>(p) + 1);
  }
  __device__ float at(int i) const {
    const float4& v = i < 4 ? low : high;
    return i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
  }
};

template <TableType kType>
__global__ void __launch_bounds__(kThreads) token_head_kernel(const __grid_constant__ TokenHead call) {
  extern __shared__ __align__(16) float memory[];
  constexpr int kAhead = 8;
  const FloatTable& table = call.table;
  const int n_cols = int(table.n_cols), tid = int(threadIdx.x), half = tid % 2;
  float* const x = memory;
  const int n_steps = n_cols / 16, step_bytes = 2 * Eight<kType>::kBytes;
  const int64_t n_rows = table.n_rows, stride = int64_t(gridDim.x) * (kThreads / 2);
  launch_dependents();
  wait_for_dependencies();
  load_normed_row(call.x, call.norm, call.eps, n_cols, x, memory + n_cols);
  __syncthreads();

  unsigned long long best = 0;
  for (int64_t first = int64_t(blockIdx.x) * (kThreads / 2); first < n_rows; first += stride) {
    const int64_t row = first + tid / 2;
    const uint8_t* const from = table.data + (row < n_rows ? row : 0) * table.row_bytes + half * Eight<kType>::kBytes;
    float lanes[8] = {};
    Eight<kType> w[kAhead];
    for (int base = 0; base < n_steps; base += kAhead) {
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (base + j < n_steps) w[j].load(from + int64_t(base + j) * step_bytes);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (base + j >= n_steps) break;
        const float4 a = *reinterpret_cast<const float4*>(x + (base + j) * 16 + half * 8);
        const float4 b = *reinterpret_cast<const float4*>(x + (base + j) * 16 + half * 8 + 4);
        lanes[0] += w[j].at(0) * a.x;
        lanes[1] += w[j].at(1) * a.y;
        lanes[2] += w[j].at(2) * a.z;
        lanes[3] += w[j].at(3) * a.w;
        lanes[4] += w[j].at(4) * b.x;
        lanes[5] += w[j].at(5) * b.y;
        lanes[6] += w[j].at(6) * b.z;
        lanes[7] += w[j].at(7) * b.w;
      }
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) lanes[e] += __shfl_down_sync(kFullWarp, lanes[e], 1);
#pragma unroll
    for (int step = 4; step > 0; step /= 2) {
      for (int e = 0; e < step; ++e) lanes[e] += lanes[e + step];
    }
    if (row < n_rows && half == 0) {
      call.logits[call.first_row + row] = lanes[0];
      const unsigned long long key = ordered_logit(lanes[0], int(call.first_row + row));
      best = key > best ? key : best;
    }
  }
  finish_best(call, 0, call.n_blocks, best);
}

template <TableType kType>
cudaError_t launch(const Launcher& launcher, const TokenHead& call) {
  const int n_cols = int(call.table.n_cols);
  const size_t n_bytes = size_t(n_cols) * 4 + halves_bytes(n_cols);
  return launch_kernel(launcher, dim3(token_head_blocks(launcher, call.table)), dim3(kThreads), n_bytes,
                       token_head_kernel<kType>, call);
}

}  // namespace

cudaError_t token_embedding(const Launcher& launcher, const FloatTable& table, const StepControl* control, float* x) {
  return launch_kernel(launcher, dim3(1), dim3(kThreads), 0, token_embedding_kernel, table, control, x);
}

bool token_head_takes(const FloatTable& table) {
  const bool type = table.type == TableType::kF32 || table.type == TableType::kF16 || table.type == TableType::kBF16;
  return type && table.n_cols % 16 == 0 && size_t(table.n_cols) * 4 + halves_bytes(int(table.n_cols)) <= 100 * 1024;
}

unsigned int token_head_blocks(const Launcher& launcher, const FloatTable& table) {
  const int64_t wanted = (table.n_rows + kThreads / 2 - 1) / (kThreads / 2), most = 4 * launcher.n_multiprocessors;
  return unsigned(wanted < most ? wanted : most);
}

cudaError_t token_head(const Launcher& launcher, const TokenHead& call) {
  switch (call.table.type) {
    case TableType::kF16: return launch<TableType::kF16>(launcher, call);
    case TableType::kBF16: return launch<TableType::kBF16>(launcher, call);
    default: return launch<TableType::kF32>(launcher, call);
  }
}

}  // namespace bitnet::cuda
