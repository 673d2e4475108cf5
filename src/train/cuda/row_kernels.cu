#include "train/cuda/train_kernels.h"
#include "train/cuda/values.cuh"

// Kernels in which a block has a whole row (a token) in registers: thread i has V columns from (i + c * threads) * V
// for each c below C.
namespace bitnet::cuda {
namespace {

constexpr float kScaleFloor = 1e-5f;

template <class X>
struct PlainSource {
  const X* x;
  template <int V>
  __device__ void read(int64_t row, int col, int n_cols, float (&v)[V]) const {
    load<V>(x + row * n_cols + col, v);
  }
};

template <class T>
struct SumSource {
  ProductSum sum;
  template <int V>
  __device__ void read(int64_t row, int col, int n_cols, float (&v)[V]) const {
    const int64_t at = row * n_cols + col;
    const float scale = sum.by.inv_scales[row] * *sum.by.alpha;
    float y[V];
    load<V>(static_cast<const T*>(sum.product) + at, y);
    load<V>(sum.x + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] += y[i] * scale;
    store<V>(sum.out + at, v);
  }
};

template <class T>
struct GateSource {
  const T* gate_up;
  ProductScale gate, up;
  bool relu2;

  template <int V>
  __device__ void read_both(int64_t row, int col, int n_cols, float (&g)[V], float (&u)[V]) const {
    const T* const at = gate_up + row * 2 * n_cols + col;
    load<V>(at, g);
    load<V>(at + n_cols, u);
    const float g_scale = gate.inv_scales[row] * *gate.alpha, u_scale = up.inv_scales[row] * *up.alpha;
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] *= g_scale, u[i] *= u_scale;
  }
  template <int V>
  __device__ void read(int64_t row, int col, int n_cols, float (&v)[V]) const {
    float u[V];
    read_both<V>(row, col, n_cols, v, u);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      v[i] = relu2 ? (v[i] > 0.0f ? v[i] * v[i] * u[i] : 0.0f) : v[i] / (1.0f + expf(-v[i])) * u[i];
    }
  }
};

template <class Source, class T, int V, int C, bool kQuantizes>
__global__ void norm_quantize_kernel(Source source, int n_cols, const float* norm, float eps, QuantizeRule rule, T* out,
                                     float* inv_scales) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  float x[C][V];
  float squares = 0;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int col = (int(threadIdx.x) + c * int(blockDim.x)) * V;
    if (col >= n_cols) continue;
    source.template read<V>(row, col, n_cols, x[c]);
#pragma unroll
    for (int i = 0; i < V; ++i) squares += x[c][i] * x[c][i];
  }
  float r = 1;
  if (norm != nullptr) r = 1.0f / sqrtf(block_join<SumOf>(squares, shared) / float(n_cols) + eps);
  float largest = 0;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int col = (int(threadIdx.x) + c * int(blockDim.x)) * V;
    if (col >= n_cols) continue;
    if (norm != nullptr) {
      float w[V];
      load<V>(norm + col, w);
#pragma unroll
      for (int i = 0; i < V; ++i) x[c][i] = x[c][i] * r * w[i];
    }
#pragma unroll
    for (int i = 0; i < V; ++i) largest = fmaxf(largest, fabsf(x[c][i]));
  }
  float scale = 1, inverse = 1;
  if (kQuantizes && rule.enabled) {
    scale = 127.0f / fmaxf(block_join<MaxOf>(largest, shared), kScaleFloor);
    inverse = 1.0f / scale;
  }
  const bool mixed = rule.lambda != 1.0f;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int col = (int(threadIdx.x) + c * int(blockDim.x)) * V;
    if (col >= n_cols) continue;
    if (kQuantizes && rule.enabled) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float q = fminf(fmaxf(rintf(x[c][i] * scale), -128.0f), 127.0f);
        x[c][i] = mixed ? x[c][i] + rule.lambda * (q * inverse - x[c][i]) : q;
      }
    }
    store<V>(out + row * n_cols + col, x[c]);
  }
  if (kQuantizes && threadIdx.x == 0) inv_scales[row] = mixed ? 1.0f : inverse;
}

// What becomes of the gradient of a row's values.
template <class T, bool kAdd>
struct ResidualSink {
  float* dx;
  ScaledCopy copy;
  template <int V>
  __device__ void write(int64_t row, int col, int n_cols, const float (&d)[V]) const {
    const int64_t at = row * n_cols + col;
    float sum[V];
    if constexpr (kAdd) load<V>(dx + at, sum);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = kAdd ? sum[i] + d[i] : d[i];
    store<V>(dx + at, sum);
    if (copy.out == nullptr) return;
    const float scale = copy.by.inv_scales[row] * *copy.by.alpha;
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] *= scale;
    store<V>(static_cast<T*>(copy.out) + at, sum);
  }
};
template <class T>
struct PlainSink {
  T* d_x;
  template <int V>
  __device__ void write(int64_t row, int col, int n_cols, const float (&d)[V]) const {
    store<V>(d_x + row * n_cols + col, d);
  }
};
template <class T>
struct GateSink {
  GateSource<T> source;
  T* d_gate_up;
  template <int V>
  __device__ void write(int64_t row, int col, int n_cols, const float (&d)[V]) const {
    float g[V], u[V];
    source.template read_both<V>(row, col, n_cols, g, u);
    const float g_scale = source.gate.inv_scales[row] * *source.gate.alpha;
    const float u_scale = source.up.inv_scales[row] * *source.up.alpha;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float by_gate, by_up;
      if (source.relu2) {
        const float positive = fmaxf(g[i], 0.0f);
        by_gate = 2.0f * positive * u[i];
        by_up = positive * positive;
      } else {
        const float s = 1.0f / (1.0f + expf(-g[i]));
        by_gate = s * (1.0f + g[i] * (1.0f - s)) * u[i];
        by_up = g[i] * s;
      }
      g[i] = by_gate * d[i] * g_scale;
      u[i] = by_up * d[i] * u_scale;
    }
    T* const at = d_gate_up + row * 2 * n_cols + col;
    store<V>(at, g);
    store<V>(at + n_cols, u);
  }
};

// A block has norm_chunk() rows, one after the other, and the sums of their gradients of the norm's weight.
template <class Source, class Sink, class T, int V, int C>
__global__ void norm_backward_kernel(Source source, Sink sink, const T* d, int n_rows, int n_cols, NormGradient by) {
  __shared__ Pair shared[32];
  float dnorm[C][V];
#pragma unroll
  for (int c = 0; c < C; ++c) {
#pragma unroll
    for (int i = 0; i < V; ++i) dnorm[c][i] = 0;
  }
  const int chunk = norm_chunk(n_rows), first = int(blockIdx.x) * chunk, last = min(first + chunk, n_rows);
  for (int64_t row = first; row < last; ++row) {
    const float scale = by.inv_scales == nullptr ? 1.0f : 1.0f / by.inv_scales[row];
    float x[C][V], g[C][V];
    Pair sums{0, 0};
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int col = (int(threadIdx.x) + c * int(blockDim.x)) * V;
      if (col >= n_cols) continue;
      load<V>(d + row * n_cols + col, g[c]);
#pragma unroll
      for (int i = 0; i < V; ++i) g[c][i] *= scale;
      if (by.norm == nullptr) continue;
      source.template read<V>(row, col, n_cols, x[c]);
      float w[V];
      load<V>(by.norm + col, w);
#pragma unroll
      for (int i = 0; i < V; ++i) sums = sums + Pair{x[c][i] * x[c][i], g[c][i] * w[i] * x[c][i]};
    }
    float r = 1, slope = 0;
    if (by.norm != nullptr) {
      sums = block_sum(sums, shared);
      r = 1.0f / sqrtf(sums.a / float(n_cols) + by.eps);
      slope = sums.b * r * r * r / float(n_cols);
    }
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int col = (int(threadIdx.x) + c * int(blockDim.x)) * V;
      if (col >= n_cols) continue;
      if (by.norm != nullptr) {
        float w[V];
        load<V>(by.norm + col, w);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          dnorm[c][i] += g[c][i] * x[c][i] * r;
          g[c][i] = r * w[i] * g[c][i] - slope * x[c][i];
        }
      }
      sink.template write<V>(row, col, n_cols, g[c]);
    }
  }
  if (by.norm == nullptr) return;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int col = (int(threadIdx.x) + c * int(blockDim.x)) * V;
    if (col < n_cols) store<V>(by.partial + int64_t(blockIdx.x) * n_cols + col, dnorm[c]);
  }
}

// out[col] += the sum of partial[chunk][col]: 32 columns a block, 32 threads a column.
__global__ void add_columns_kernel(const float* partial, int n_chunks, int n_cols, float* out) {
  __shared__ float sums[32][33];
  const int col = int(blockIdx.x) * 32 + int(threadIdx.x);
  float sum = 0;
  if (col < n_cols) {
#pragma unroll 8
    for (int chunk = int(threadIdx.y); chunk < n_chunks; chunk += 32) sum += partial[int64_t(chunk) * n_cols + col];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || col >= n_cols) return;
  for (int i = 1; i < 32; ++i) sum += sums[i][threadIdx.x];
  out[col] += sum;
}

// fn.template operator()<V, C>(threads). A block that has one row is done the sooner the fewer of its warps wait for
// each other, and has four loads in flight a thread instead; one that has many rows wants threads.
template <class Fn>
void for_columns(int n_cols, bool many_rows, const Fn& fn) {
  if (n_cols % 4 != 0) return fn.template operator()<1, 16>(512);
  const int n_quads = n_cols / 4, n_threads = (n_quads + 31) / 32 * 32;
  if (many_rows && n_threads <= 512) return fn.template operator()<4, 1>(n_threads);
  if (n_quads <= 4 * 512) return fn.template operator()<4, 4>((n_quads + 127) / 128 * 32);
  fn.template operator()<4, 16>(512);
}

template <class T, bool kQuantizes = true, class Source>
void launch_quantize(cudaStream_t stream, Source source, int n_rows, int n_cols, const float* norm, float eps,
                     QuantizeRule rule, void* out, float* inv_scales) {
  for_columns(n_cols, false, [&]<int V, int C>(int n_threads) {
    norm_quantize_kernel<Source, T, V, C, kQuantizes>
        <<<n_rows, n_threads, 0, stream>>>(source, n_cols, norm, eps, rule, static_cast<T*>(out), inv_scales);
  });
}

template <class T, class Source, class Sink>
void launch_backward(cudaStream_t stream, Source source, Sink sink, const void* d, int n_rows, int n_cols,
                     const NormGradient& by) {
  const int n_chunks = int(norm_chunks(n_rows));
  for_columns(n_cols, true, [&]<int V, int C>(int n_threads) {
    norm_backward_kernel<Source, Sink, T, V, C>
        <<<n_chunks, n_threads, 0, stream>>>(source, sink, static_cast<const T*>(d), n_rows, n_cols, by);
  });
  if (by.norm == nullptr) return;
  add_columns_kernel<<<(n_cols + 31) / 32, dim3(32, 32), 0, stream>>>(by.partial, n_chunks, n_cols, by.dnorm);
}

template <class T>
GateSource<T> gate_source(const void* gate_up, ProductScale gate, ProductScale up, bool relu2) {
  return {static_cast<const T*>(gate_up), gate, up, relu2};
}

}  // namespace

void norm_quantize(cudaStream_t stream, Precision precision, const float* x, int n_rows, int n_cols, const float* norm,
                   float eps, QuantizeRule rule, void* out, float* inv_scales) {
  const PlainSource<float> source{x};
  if (precision == Precision::kBf16) {
    launch_quantize<Bf16>(stream, source, n_rows, n_cols, norm, eps, rule, out, inv_scales);
  } else {
    launch_quantize<float>(stream, source, n_rows, n_cols, norm, eps, rule, out, inv_scales);
  }
}

void norm_quantize(cudaStream_t stream, Precision precision, const void* x, int n_rows, int n_cols, const float* norm,
                   float eps, QuantizeRule rule, void* out, float* inv_scales) {
  if (precision == Precision::kFloat32) {
    return norm_quantize(stream, precision, static_cast<const float*>(x), n_rows, n_cols, norm, eps, rule, out,
                         inv_scales);
  }
  const PlainSource<Bf16> source{static_cast<const Bf16*>(x)};
  launch_quantize<Bf16>(stream, source, n_rows, n_cols, norm, eps, rule, out, inv_scales);
}

void norm_quantize(cudaStream_t stream, Precision precision, const ProductSum& x, int n_rows, int n_cols,
                   const float* norm, float eps, QuantizeRule rule, void* out, float* inv_scales) {
  if (precision == Precision::kBf16) {
    launch_quantize<Bf16>(stream, SumSource<Bf16>{x}, n_rows, n_cols, norm, eps, rule, out, inv_scales);
  } else {
    launch_quantize<float>(stream, SumSource<float>{x}, n_rows, n_cols, norm, eps, rule, out, inv_scales);
  }
}

void norm(cudaStream_t stream, Precision precision, const float* x, int n_rows, int n_cols, const float* norm,
          float eps, void* out) {
  const PlainSource<float> source{x};
  if (precision == Precision::kBf16) {
    launch_quantize<Bf16, false>(stream, source, n_rows, n_cols, norm, eps, {}, out, nullptr);
  } else {
    launch_quantize<float, false>(stream, source, n_rows, n_cols, norm, eps, {}, out, nullptr);
  }
}

void gate_quantize(cudaStream_t stream, Precision precision, bool relu2, const void* gate_up, ProductScale gate,
                   ProductScale up, int n_rows, int n_cols, const float* norm, float eps, QuantizeRule rule, void* out,
                   float* inv_scales) {
  if (precision == Precision::kBf16) {
    launch_quantize<Bf16>(stream, gate_source<Bf16>(gate_up, gate, up, relu2), n_rows, n_cols, norm, eps, rule, out,
                          inv_scales);
  } else {
    launch_quantize<float>(stream, gate_source<float>(gate_up, gate, up, relu2), n_rows, n_cols, norm, eps, rule, out,
                           inv_scales);
  }
}

void norm_backward(cudaStream_t stream, Precision precision, const float* x, const void* d, int n_rows, int n_cols,
                   const NormGradient& by, bool add, float* dx, const ScaledCopy& copy) {
  const auto launch = [&]<class T>(T*) {
    const PlainSource<float> source{x};
    if (add) {
      launch_backward<T>(stream, source, ResidualSink<T, true>{dx, copy}, d, n_rows, n_cols, by);
    } else {
      launch_backward<T>(stream, source, ResidualSink<T, false>{dx, copy}, d, n_rows, n_cols, by);
    }
  };
  precision == Precision::kBf16 ? launch(static_cast<Bf16*>(nullptr)) : launch(static_cast<float*>(nullptr));
}

void norm_backward(cudaStream_t stream, Precision precision, const void* x, int n_rows, int n_cols,
                   const NormGradient& by, void* d) {
  if (precision == Precision::kBf16) {
    launch_backward<Bf16>(stream, PlainSource<Bf16>{static_cast<const Bf16*>(x)},
                          PlainSink<Bf16>{static_cast<Bf16*>(d)}, d, n_rows, n_cols, by);
  } else {
    launch_backward<float>(stream, PlainSource<float>{static_cast<const float*>(x)},
                           PlainSink<float>{static_cast<float*>(d)}, d, n_rows, n_cols, by);
  }
}

void gate_backward(cudaStream_t stream, Precision precision, bool relu2, const void* gate_up, ProductScale gate,
                   ProductScale up, const void* d, int n_rows, int n_cols, const NormGradient& by, void* d_gate_up) {
  const auto launch = [&]<class T>(T*) {
    const GateSource<T> source = gate_source<T>(gate_up, gate, up, relu2);
    launch_backward<T>(stream, source, GateSink<T>{source, static_cast<T*>(d_gate_up)}, d, n_rows, n_cols, by);
  };
  precision == Precision::kBf16 ? launch(static_cast<Bf16*>(nullptr)) : launch(static_cast<float*>(nullptr));
}

}  // namespace bitnet::cuda
