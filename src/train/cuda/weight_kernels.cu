#include "train/cuda/ternary_code.cuh"
#include "train/cuda/train_kernels.h"
#include "train/cuda/values.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

int value_blocks(int64_t n) { return int(min((n + 4 * kThreads - 1) / (4 * kThreads), int64_t{4096})); }

// Parts of the sum of |w|, in double: of floats their sums are as good as exact.
__global__ void mean_parts_kernel(const float* w, int64_t n, double* parts) {
  __shared__ double shared[32];
  const int64_t stride = int64_t(kMeanParts) * kThreads * 4;
  double sum = 0;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 4; i < n; i += stride) {
    float v[4] = {};
    if (i + 4 <= n) {
      load<4>(w + i, v);
    } else {
      for (int j = 0; i + j < n; ++j) v[j] = w[i + j];
    }
    sum += (double(fabsf(v[0])) + double(fabsf(v[1]))) + (double(fabsf(v[2])) + double(fabsf(v[3])));
  }
  sum = block_join<SumOf>(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <class T>
__global__ void quantize_weight_kernel(const float* w, int64_t n, QuantizeRule rule, const double* parts, T* codes,
                                       float* alphas) {
  __shared__ double shared[32];
  double sum = 0;
  for (int i = int(threadIdx.x); i < kMeanParts; i += kThreads) sum += parts[i];
  sum = block_join<SumOf>(sum, shared);
  const auto [scale, alpha] = ternary_scale(sum, n);
  const bool mixed = rule.lambda != 1.0f;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    const bool whole = rule.enabled && !mixed;
    alphas[0] = whole ? alpha : 1.0f;
    alphas[1] = whole ? 1.0f / alpha : 1.0f;
  }
  const bool aligned = reinterpret_cast<uintptr_t>(codes) % (4 * sizeof(T)) == 0;  // they follow other codes
  const int64_t stride = int64_t(gridDim.x) * kThreads * 4;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 4; i < n; i += stride) {
    const bool whole = i + 4 <= n;
    float v[4] = {};
    if (whole) {
      load<4>(w + i, v);
    } else {
      for (int j = 0; i + j < n; ++j) v[j] = w[i + j];
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (!rule.enabled) continue;
      const float q = ternary(v[j], scale);
      v[j] = mixed ? v[j] + rule.lambda * (q * alpha - v[j]) : q;
    }
    if (whole && aligned) {
      store<4>(codes + i, v);
    } else {
      for (int j = 0; j < 4 && i + j < n; ++j) codes[i + j] = T(v[j]);
    }
  }
}

// Integers, so that the order of the additions is no matter.
template <class T>
__global__ void count_codes_kernel(const T* codes, int64_t n, uint8_t* last, unsigned long long* counts) {
  int n_flipped = 0, n_zeros = 0;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads) {
    const uint8_t code = uint8_t(1 + int(float(codes[i])));
    n_flipped += int(code != last[i]);
    n_zeros += int(code == 1);
    last[i] = code;
  }
  n_flipped = __reduce_add_sync(0xffffffffu, n_flipped);
  n_zeros = __reduce_add_sync(0xffffffffu, n_zeros);
  if (threadIdx.x % 32 != 0) return;
  atomicAdd(counts, static_cast<unsigned long long>(n_flipped));
  atomicAdd(counts + 1, static_cast<unsigned long long>(n_zeros));
}

__global__ void adamw_kernel(AdamwStep step, int64_t n_groups, const uint8_t* decays, const float4* g4, float4* m4,
                             float4* v4, float4* p4) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n_groups) return;
  const float keep = decays[i / (kDecayGroup / 4)] != 0 ? step.lr_decay : 1.0f;
  const auto update = [&](float g, float& m, float& v, float& p) {
    g *= step.factor;
    m = step.beta1 * m + (1.0f - step.beta1) * g;
    v = step.beta2 * v + (1.0f - step.beta2) * g * g;
    p = p * keep - step.rate * m / (sqrtf(v) * step.root + step.eps);
  };
  const float4 g = g4[i];
  float4 m = m4[i], v = v4[i], p = p4[i];
  update(g.x, m.x, v.x, p.x);
  update(g.y, m.y, v.y, p.y);
  update(g.z, m.z, v.z, p.z);
  update(g.w, m.w, v.w, p.w);
  m4[i] = m, v4[i] = v, p4[i] = p;
}

__global__ void sgd_kernel(float factor, float momentum, float decay, float lr, int64_t n, const uint8_t* decays,
                           const float* g, float* m, float* p) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  m[i] = momentum * m[i] + (g[i] * factor + (decays[i / kDecayGroup] != 0 ? decay : 0.0f) * p[i]);
  p[i] -= lr * m[i];
}

__global__ void move_average_kernel(float keep, float take, int64_t n, const float* p, float* average) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) average[i] = keep * average[i] + take * p[i];
}

unsigned blocks(int64_t n) { return unsigned((n + kThreads - 1) / kThreads); }

}  // namespace

void quantize_weight(cudaStream_t stream, Precision precision, const float* w, int64_t n, QuantizeRule rule,
                     double* scratch, void* codes, float* alpha) {
  mean_parts_kernel<<<kMeanParts, kThreads, 0, stream>>>(w, n, scratch);
  if (precision == Precision::kBf16) {
    quantize_weight_kernel<<<value_blocks(n), kThreads, 0, stream>>>(w, n, rule, scratch, static_cast<Bf16*>(codes),
                                                                     alpha);
  } else {
    quantize_weight_kernel<<<value_blocks(n), kThreads, 0, stream>>>(w, n, rule, scratch, static_cast<float*>(codes),
                                                                     alpha);
  }
}

void count_codes(cudaStream_t stream, Precision precision, const void* codes, int64_t n, uint8_t* last,
                 unsigned long long* counts) {
  if (precision == Precision::kBf16) {
    count_codes_kernel<<<value_blocks(n), kThreads, 0, stream>>>(static_cast<const Bf16*>(codes), n, last, counts);
  } else {
    count_codes_kernel<<<value_blocks(n), kThreads, 0, stream>>>(static_cast<const float*>(codes), n, last, counts);
  }
}

void adamw(cudaStream_t stream, const AdamwStep& step, int64_t n, const uint8_t* decays, const float* g, float* m,
           float* v, float* p) {
  adamw_kernel<<<blocks(n / 4), kThreads, 0, stream>>>(step, n / 4, decays, reinterpret_cast<const float4*>(g),
                                                       reinterpret_cast<float4*>(m), reinterpret_cast<float4*>(v),
                                                       reinterpret_cast<float4*>(p));
}

void sgd(cudaStream_t stream, float factor, float momentum, float decay, float lr, int64_t n, const uint8_t* decays,
         const float* g, float* m, float* p) {
  sgd_kernel<<<blocks(n), kThreads, 0, stream>>>(factor, momentum, decay, lr, n, decays, g, m, p);
}

void move_average(cudaStream_t stream, float keep, float take, int64_t n, const float* p, float* average) {
  move_average_kernel<<<blocks(n), kThreads, 0, stream>>>(keep, take, n, p, average);
}

}  // namespace bitnet::cuda
