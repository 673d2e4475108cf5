#include "train/cuda/train_kernels.h"
#include "train/cuda/values.cuh"

// Kernels that treat each value by itself, and the gradient of the embedding.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

// fn(T*, V): for T of the precision.
template <class Fn>
void for_precision(Precision precision, const Fn& fn) {
  precision == Precision::kBf16 ? fn(static_cast<Bf16*>(nullptr)) : fn(static_cast<float*>(nullptr));
}
dim3 row_grid(int n_rows, int n_items) { return dim3(unsigned(n_rows), unsigned((n_items + kThreads - 1) / kThreads)); }

// A block's second index is a part of the row's items: first the pairs of queries and keys, V at a time, then what does
// not turn: the rest of their heads, and the values.
template <class T, int V>
__global__ void scale_and_rotate_kernel(T* qkv, HeadsShape shape, const float* cos, const float* sin, int turn,
                                        ProductScale q, ProductScale k, ProductScale v) {
  const int n_turning = shape.n_heads + shape.n_kv_heads;
  const int pair_items = n_turning * (shape.n_pairs / V);
  const int rest = shape.head_dim - 2 * shape.n_pairs, rest_items = n_turning * (rest / V);
  int item = int(blockIdx.y) * kThreads + int(threadIdx.x);
  const int64_t row = blockIdx.x;
  T* const at = qkv + row * shape.qkv_cols();
  if (item < pair_items) {
    const int head = item / (shape.n_pairs / V), pair = item % (shape.n_pairs / V) * V;
    const ProductScale& by = head < shape.n_heads ? q : k;
    const float scale = by.inv_scales[row] * *by.alpha;
    const int64_t angle = row % shape.n_positions * shape.n_pairs + pair;
    T* const first = at + head * shape.head_dim + pair;
    float a[V], b[V], c[V], s[V];
    load<V>(first, a);
    load<V>(first + shape.n_pairs, b);
    load<V>(cos + angle, c);
    load<V>(sin + angle, s);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float x = a[i] * scale, y = b[i] * scale, turned = float(turn) * s[i];
      a[i] = x * c[i] - y * turned;
      b[i] = y * c[i] + x * turned;
    }
    store<V>(first, a);
    store<V>(first + shape.n_pairs, b);
    return;
  }
  item -= pair_items;
  int col;
  const ProductScale* by = &v;
  if (item < rest_items) {
    const int head = item / (rest / V);
    col = head * shape.head_dim + 2 * shape.n_pairs + item % (rest / V) * V;
    by = head < shape.n_heads ? &q : &k;
  } else {
    col = (item - rest_items) * V + n_turning * shape.head_dim;
    if (col >= shape.qkv_cols()) return;
  }
  const float scale = by->inv_scales[row] * *by->alpha;
  float x[V];
  load<V>(at + col, x);
#pragma unroll
  for (int i = 0; i < V; ++i) x[i] *= scale;
  store<V>(at + col, x);
}

template <class T, int V>
__global__ void scale_add_kernel(const T* product, ProductScale by, const float* x, int n_cols, float* out) {
  const int col = (int(blockIdx.y) * kThreads + int(threadIdx.x)) * V;
  if (col >= n_cols) return;
  const int64_t row = blockIdx.x, at = row * n_cols + col;
  const float scale = by.inv_scales[row] * *by.alpha;
  float y[V], sum[V];
  load<V>(product + at, y);
  load<V>(x + at, sum);
#pragma unroll
  for (int i = 0; i < V; ++i) sum[i] += y[i] * scale;
  store<V>(out + at, sum);
}

template <class T, int V>
__global__ void scale_rows_kernel(const float* x, ProductScale by, int n_cols, T* out) {
  const int col = (int(blockIdx.y) * kThreads + int(threadIdx.x)) * V;
  if (col >= n_cols) return;
  const int64_t row = blockIdx.x, at = row * n_cols + col;
  const float scale = by.inv_scales[row] * *by.alpha;
  float y[V];
  load<V>(x + at, y);
#pragma unroll
  for (int i = 0; i < V; ++i) y[i] *= scale;
  store<V>(out + at, y);
}

template <class From, class To>
__global__ void convert_kernel(const From* x, int64_t n, To* out) {
  const int64_t n_whole = n / 4 * 4, stride = int64_t(gridDim.x) * kThreads;
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  float v[4];
  for (int64_t i = thread * 4; i < n_whole; i += stride * 4) {
    load<4>(x + i, v);
    store<4>(out + i, v);
  }
  for (int64_t i = n_whole + thread; i < n; i += stride) out[i] = To(float(x[i]));
}

__global__ void embed_kernel(const float* table, const int32_t* ids, int n_cols, float* out) {
  const int col = int(blockIdx.y) * kThreads + int(threadIdx.x);
  if (col < n_cols) out[int64_t(blockIdx.x) * n_cols + col] = table[int64_t(ids[blockIdx.x]) * n_cols + col];
}

__global__ void embed_pieces_kernel(const float* dx, int n_cols, const int32_t* order, const EmbeddingPiece* pieces,
                                    float* partial, float* dtable) {
  const int col = int(blockIdx.y) * kThreads + int(threadIdx.x);
  if (col >= n_cols) return;
  const EmbeddingPiece piece = pieces[blockIdx.x];
  float sum = 0;
#pragma unroll 4
  for (int i = piece.begin; i < piece.end; ++i) sum += dx[int64_t(order[i]) * n_cols + col];
  if (piece.partial >= 0) {
    partial[int64_t(piece.partial) * n_cols + col] = sum;
  } else {
    dtable[int64_t(piece.id) * n_cols + col] += sum;
  }
}

__global__ void embed_sums_kernel(const EmbeddingSum* sums, int n_cols, const float* partial, float* dtable) {
  const int col = int(blockIdx.y) * kThreads + int(threadIdx.x);
  if (col >= n_cols) return;
  const EmbeddingSum s = sums[blockIdx.x];
  float sum = 0;
#pragma unroll 4
  for (int i = 0; i < s.n; ++i) sum += partial[int64_t(s.first + i) * n_cols + col];
  dtable[int64_t(s.id) * n_cols + col] += sum;
}

int value_blocks(int64_t n) { return int(min((n + 4 * kThreads - 1) / (4 * kThreads), int64_t{8192})); }

}  // namespace

void scale_and_rotate(cudaStream_t stream, Precision precision, void* qkv, const HeadsShape& shape, const float* cos,
                      const float* sin, int turn, ProductScale q, ProductScale k, ProductScale v) {
  for_precision(precision, [&]<class T>(T*) {
    const int n_values = shape.qkv_cols() - (shape.n_heads + shape.n_kv_heads) * shape.n_pairs;  // a pair is one item
    T* const x = static_cast<T*>(qkv);
    if (shape.n_pairs % 4 == 0 && shape.head_dim % 4 == 0) {
      scale_and_rotate_kernel<T, 4>
          <<<row_grid(shape.n_tokens(), n_values / 4), kThreads, 0, stream>>>(x, shape, cos, sin, turn, q, k, v);
    } else {
      scale_and_rotate_kernel<T, 1>
          <<<row_grid(shape.n_tokens(), n_values), kThreads, 0, stream>>>(x, shape, cos, sin, turn, q, k, v);
    }
  });
}

void scale_add(cudaStream_t stream, Precision precision, const ProductSum& sum, int n_rows, int n_cols) {
  for_precision(precision, [&]<class T>(T*) {
    const T* const y = static_cast<const T*>(sum.product);
    if (n_cols % 4 == 0) {
      scale_add_kernel<T, 4><<<row_grid(n_rows, n_cols / 4), kThreads, 0, stream>>>(y, sum.by, sum.x, n_cols, sum.out);
    } else {
      scale_add_kernel<T, 1><<<row_grid(n_rows, n_cols), kThreads, 0, stream>>>(y, sum.by, sum.x, n_cols, sum.out);
    }
  });
}

void scale_rows(cudaStream_t stream, Precision precision, const float* x, ProductScale by, int n_rows, int n_cols,
                void* out) {
  for_precision(precision, [&]<class T>(T*) {
    T* const to = static_cast<T*>(out);
    if (n_cols % 4 == 0) {
      scale_rows_kernel<T, 4><<<row_grid(n_rows, n_cols / 4), kThreads, 0, stream>>>(x, by, n_cols, to);
    } else {
      scale_rows_kernel<T, 1><<<row_grid(n_rows, n_cols), kThreads, 0, stream>>>(x, by, n_cols, to);
    }
  });
}

void convert(cudaStream_t stream, Precision precision, const float* x, int64_t n, void* out) {
  for_precision(precision, [&]<class T>(T*) {
    convert_kernel<<<value_blocks(n), kThreads, 0, stream>>>(x, n, static_cast<T*>(out));
  });
}
void convert_back(cudaStream_t stream, Precision precision, const void* x, int64_t n, float* out) {
  for_precision(precision, [&]<class T>(T*) {
    convert_kernel<<<value_blocks(n), kThreads, 0, stream>>>(static_cast<const T*>(x), n, out);
  });
}

void embed(cudaStream_t stream, const float* table, const int32_t* ids, int n_rows, int n_cols, float* out) {
  embed_kernel<<<row_grid(n_rows, n_cols), kThreads, 0, stream>>>(table, ids, n_cols, out);
}

void embed_backward(cudaStream_t stream, const float* dx, int n_cols, const int32_t* order,
                    const EmbeddingPiece* pieces, int n_pieces, const EmbeddingSum* sums, int n_sums, float* partial,
                    float* dtable) {
  embed_pieces_kernel<<<row_grid(n_pieces, n_cols), kThreads, 0, stream>>>(dx, n_cols, order, pieces, partial, dtable);
  if (n_sums == 0) return;
  embed_sums_kernel<<<row_grid(n_sums, n_cols), kThreads, 0, stream>>>(sums, n_cols, partial, dtable);
}

}  // namespace bitnet::cuda
