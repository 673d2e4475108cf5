#include "train/cpu/attention_gradient.h"

#include "base/checked.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

// A head's columns of `from`, rows [first, first + n): as they are or turned.
void copy_head(Rows<float> from, int64_t first, int64_t n, int64_t column, int64_t head_dim, int64_t width,
               PoolVector<float>& to) {
  for (int64_t t = 0; t < n; ++t) std::copy_n(from.row(first + t) + column, head_dim, to.data() + t * width);
}
void turn_head(Rows<float> from, int64_t first, int64_t n, int64_t column, int64_t head_dim, int64_t n_rows,
               PoolVector<float>& to) {
  for (int64_t t = 0; t < n; ++t) {
    const float* const row = from.row(first + t) + column;
    for (int64_t i = 0; i < head_dim; ++i) to[size_t(i * n_rows + t)] = row[i];
  }
}

}  // namespace

struct AttentionGradient::Call {
  const AttentionShape& shape;
  Rows<float> q, k, v, out, dout, dq, dk, dv;
  int64_t n_rows;  // positions of a sequence, padded
  int64_t width;   // of a head, padded
};

void AttentionGradient::run(const AttentionShape& shape, Rows<float> q, Rows<float> k, Rows<float> v, Rows<float> out,
                            Rows<float> dout, Rows<float> dq, Rows<float> dk, Rows<float> dv) {
  const Call call{shape,
                  q,
                  k,
                  v,
                  out,
                  dout,
                  dq,
                  dk,
                  dv,
                  round_up(round_up(shape.n_positions, kQueriesAtOnce), kProductCols) + kProductCols,
                  round_up(shape.head_dim, kProductCols)};
  const int64_t heads_per_kv = shape.n_heads / shape.n_kv_heads, n = shape.n_positions, d = shape.head_dim;
  scratch_.resize(size_t(pool_.n_threads()));
  pool_.parallel_for(shape.n_sequences * shape.n_kv_heads, [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch_[size_t(thread)];
    const size_t size = size_t(call.n_rows * call.width);
    for (auto* values : {&s.q, &s.q_turned, &s.k, &s.k_turned, &s.v_turned, &s.dout, &s.dout_turned, &s.dk, &s.dv}) {
      values->assign(size, 0.0f);
    }
    for (auto* values : {&s.p, &s.ds, &s.ds_turned}) values->assign(size_t(kQueriesAtOnce * call.n_rows), 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / shape.n_kv_heads * n, kv_head = i % shape.n_kv_heads;
      copy_head(k, first, n, kv_head * d, d, call.width, s.k);
      turn_head(k, first, n, kv_head * d, d, call.n_rows, s.k_turned);
      turn_head(v, first, n, kv_head * d, d, call.n_rows, s.v_turned);
      std::fill(s.dk.begin(), s.dk.end(), 0.0f);
      std::fill(s.dv.begin(), s.dv.end(), 0.0f);
      for (int64_t j = 0; j < heads_per_kv; ++j) head(call, first, kv_head * heads_per_kv + j, s);
      for (int64_t t = 0; t < n; ++t) {
        std::copy_n(s.dk.data() + t * call.width, d, dk.row(first + t) + kv_head * d);
        std::copy_n(s.dv.data() + t * call.width, d, dv.row(first + t) + kv_head * d);
      }
    }
  });
}

void AttentionGradient::head(const Call& call, int64_t first_token, int64_t query_head, Scratch& s) const {
  const int64_t n = call.shape.n_positions, d = call.shape.head_dim, column = query_head * d;
  copy_head(call.q, first_token, n, column, d, call.width, s.q);
  turn_head(call.q, first_token, n, column, d, call.n_rows, s.q_turned);
  copy_head(call.dout, first_token, n, column, d, call.width, s.dout);
  turn_head(call.dout, first_token, n, column, d, call.n_rows, s.dout_turned);
  for (int64_t begin = 0; begin < n; begin += kQueriesAtOnce) queries(call, first_token, query_head, begin, s);
}

void AttentionGradient::queries(const Call& call, int64_t first_token, int64_t query_head, int64_t begin,
                                Scratch& s) const {
  const TrainingKernels& kernels = kernels_.training;
  const int64_t d = call.shape.head_dim, width = call.width, n_rows = call.n_rows, column = query_head * d;
  const int64_t end = std::min(begin + kQueriesAtOnce, call.shape.n_positions);  // queries, and keys that they see
  const float scale = 1.0f / std::sqrt(float(d));
  float tile[kProductRows * kProductCols];

  // p = q k^T, ds = dout v^T, later dp.
  for (int64_t r = 0; r < kQueriesAtOnce; r += kProductRows) {
    for (int64_t j = 0; j < end; j += kProductCols) {
      for (const bool scores : {true, false}) {
        const float* const a = (scores ? s.q_turned : s.dout_turned).data() + begin + r;
        const float* const b = (scores ? s.k_turned : s.v_turned).data() + j;
        kernels.product_f32(a, n_rows, b, n_rows, d, tile);
        float* const to = (scores ? s.p : s.ds).data() + r * n_rows + j;
        for (int64_t i = 0; i < kProductRows; ++i) {
          std::copy_n(tile + i * kProductCols, kProductCols, to + i * n_rows);
        }
      }
    }
  }
  const int64_t keys_end = round_up(end, kProductCols) + kProductRows;  // as far as the tiles below read
  for (int64_t r = 0; r < kQueriesAtOnce; ++r) {
    float *const p = s.p.data() + r * n_rows, *const ds = s.ds.data() + r * n_rows;
    const int64_t t = begin + r, n = t < end ? t + 1 : 0;
    if (n > 0) {
      kernels_.scale(p, n, kernels_.softmax(p, n, scale));
      const float mean =
          kernels.dot(call.dout.row(first_token + t) + column, call.out.row(first_token + t) + column, d);
      kernels.softmax_backward(p, mean, scale, n, ds);
    }
    std::fill(p + n, p + keys_end, 0.0f);
    std::fill(ds + n, ds + keys_end, 0.0f);
    for (int64_t j = 0; j < keys_end; ++j) s.ds_turned[size_t(j * kQueriesAtOnce + r)] = ds[j];
  }

  // dq = ds k.
  for (int64_t r = 0; r < end - begin; r += kProductRows) {
    for (int64_t i = 0; i < width; i += kProductCols) {
      kernels.product_f32(s.ds_turned.data() + r, kQueriesAtOnce, s.k.data() + i, width, end, tile);
      for (int64_t row = 0; row < std::min(kProductRows, end - begin - r); ++row) {
        std::copy_n(tile + row * kProductCols, std::min(kProductCols, d - i),
                    call.dq.row(first_token + begin + r + row) + column + i);
      }
    }
  }
  // dk += ds^T q, dv += p^T dout.
  for (int64_t j = 0; j < end; j += kProductRows) {
    for (int64_t i = 0; i < width; i += kProductCols) {
      for (const bool keys : {true, false}) {
        kernels.product_f32((keys ? s.ds : s.p).data() + j, n_rows, (keys ? s.q : s.dout).data() + begin * width + i,
                            width, end - begin, tile);
        float* const to = (keys ? s.dk : s.dv).data() + j * width + i;
        for (int64_t row = 0; row < kProductRows; ++row) {
          kernels_.add(tile + row * kProductCols, kProductCols, to + row * width);
        }
      }
    }
  }
}

}  // namespace bitnet
