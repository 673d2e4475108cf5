#include "train/cpu/cpu_ops.h"

#include "kernels/cpu/dispatch.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

constexpr int64_t kChunk = 64;  // tokens whose gradients of a norm are added up together

MatrixView view(Rows<float> x) { return {x.data, x.n_rows, x.n_cols}; }

}  // namespace

CpuOps::CpuOps(std::unique_ptr<Backend> backend, std::unique_ptr<Stream> stream, const CpuKernels& kernels,
               Buffer cache)
    : backend_(std::move(backend)),
      stream_(std::move(stream)),
      kernels_(kernels),
      cache_(std::move(cache)),
      dense_(stream_->pool(), kernels),
      ternary_(stream_->pool(), kernels),
      attention_(stream_->pool(), kernels) {}

Result<std::unique_ptr<CpuOps>> CpuOps::create(const ModelConfig& config, const AttentionShape& shape, int n_threads,
                                               const ModelConfig* second) {
  BN_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, make_backend("cpu"));
  BN_ASSIGN_OR_RETURN(const CpuKernels* const kernels, choose_cpu_kernels());
  StreamOptions options;
  options.n_threads = n_threads > 0 ? n_threads : available_cpus();
  options.max_tokens = shape.n_tokens();
  options.max_cols = std::max({config.d_model, config.d_ff, shape.q_cols()});
  options.n_ctx = shape.n_positions;
  options.n_heads = shape.n_heads;
  int64_t kv_cols = shape.kv_cols();
  if (second != nullptr) {
    options.max_cols = std::max({options.max_cols, second->d_model, second->d_ff, second->n_heads * second->head_dim});
    options.n_heads = std::max(options.n_heads, second->n_heads);
    kv_cols = std::max(kv_cols, second->n_kv_heads * second->head_dim);
  }
  BN_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, backend->new_stream(options));
  BN_ASSIGN_OR_RETURN(Buffer cache, backend->allocate(size_t(2 * shape.n_positions * kv_cols) * sizeof(float)));
  return std::unique_ptr<CpuOps>(new CpuOps(std::move(backend), std::move(stream), *kernels, std::move(cache)));
}

Status CpuOps::take_status() {
  if (!error_) return ok();
  Error error = *std::move(error_);
  error_.reset();
  return error;
}

void CpuOps::embed(const float* table, std::span<const int32_t> ids, R out) {
  for_rows(out.n_rows, [&](int64_t t) { std::copy_n(table + ids[size_t(t)] * out.n_cols, out.n_cols, out.row(t)); });
}

// Each thread has columns of its own, so that a token's gradients arrive in order.
void CpuOps::embed_backward(std::span<const int32_t> ids, R dout, float* dtable) {
  constexpr int64_t kColumns = 64;
  pool().parallel_for((dout.n_cols + kColumns - 1) / kColumns, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kColumns, n = std::min(end * kColumns, dout.n_cols) - first;
    for (int64_t t = 0; t < dout.n_rows; ++t) {
      kernels_.add(dout.row(t) + first, n, dtable + ids[size_t(t)] * dout.n_cols + first);
    }
  });
}

void CpuOps::rms_norm(R x, const float* weight, float eps, R out) {
  backend_->rms_norm(*stream_, view(x), {weight, size_t(x.n_cols)}, eps, view(out));
}

void CpuOps::rms_norm_backward(R x, const float* weight, float eps, R dy, R dx, bool add, float* dweight) {
  const int64_t n_chunks = (x.n_rows + kChunk - 1) / kChunk;
  partial_.assign(size_t(n_chunks * x.n_cols), 0.0f);
  for_rows(n_chunks, [&](int64_t chunk) {
    for (int64_t t = chunk * kChunk; t < std::min((chunk + 1) * kChunk, x.n_rows); ++t) {
      kernels_.training.rms_norm_backward(x.row(t), weight, eps, dy.row(t), x.n_cols, add, dx.row(t),
                                          partial_.data() + chunk * x.n_cols);
    }
  });
  for (int64_t chunk = 0; dweight != nullptr && chunk < n_chunks; ++chunk) {
    kernels_.add(partial_.data() + chunk * x.n_cols, x.n_cols, dweight);
  }
}

void CpuOps::rope(R x, const AttentionShape& shape, const RopeTable& table, int turn) {
  RopeTable turned = table;
  if (turn < 0) {
    sines_.resize(size_t(shape.n_positions * table.n_pairs));
    for (size_t i = 0; i < sines_.size(); ++i) sines_[i] = -table.sin[i];
    turned.sin = sines_.data();
  }
  for (int64_t sequence = 0; sequence < shape.n_sequences; ++sequence) {
    const MatrixView rows{x.row(sequence * shape.n_positions), shape.n_positions, x.n_cols};
    backend_->rope(*stream_, rows, shape.head_dim, turned, 0);
  }
}

void CpuOps::attention(const AttentionShape& shape, R q, R k, R v, R out) {
  const int64_t n = shape.n_positions;
  float* const keys = cache_.as<float>();
  const KvLayer cache{keys, keys + n * shape.kv_cols(), DType::kF32, shape.n_kv_heads, n, shape.head_dim};
  for (int64_t sequence = 0; sequence < shape.n_sequences; ++sequence) {
    const int64_t first = sequence * n;
    backend_->store_kv(*stream_, {k.row(first), n, k.n_cols}, {v.row(first), n, v.n_cols}, cache, 0);
    backend_->attention(*stream_, {q.row(first), n, q.n_cols}, cache, 0, {out.row(first), n, out.n_cols});
  }
}

void CpuOps::attention_backward(const AttentionShape& shape, R q, R k, R v, R out, R dout, R dq, R dk, R dv) {
  attention_.run(shape, q, k, v, out, dout, dq, dk, dv);
}

void CpuOps::gate(GateActivation activation, R gate, R up, R out) {
  backend_->gate(*stream_, activation, view(gate), view(up), view(out));
}
void CpuOps::gate_backward(GateActivation activation, R gate, R up, R dout, R dgate, R dup) {
  const auto backward =
      activation == GateActivation::kRelu2 ? kernels_.training.relu2_backward : kernels_.training.silu_backward;
  for_rows(gate.n_rows,
           [&](int64_t t) { backward(gate.row(t), up.row(t), dout.row(t), gate.n_cols, dgate.row(t), dup.row(t)); });
}
void CpuOps::add(R x, R y) { backend_->add(*stream_, view(x), view(y)); }

// The loss of one row; with `backward` its logits become their gradients.
double CpuOps::row_loss(float* logits, int64_t vocab_size, int32_t target, float factor, bool backward) const {
  if (target < 0) {
    std::fill_n(logits, vocab_size, 0.0f);
    return 0;
  }
  const float label = logits[target], top = *std::max_element(logits, logits + vocab_size);
  const float inverse = kernels_.softmax(logits, vocab_size, 1.0f);
  if (backward) {
    kernels_.scale(logits, vocab_size, inverse * factor);
    logits[target] -= factor;
  }
  return -std::log(double(inverse)) - double(label - top);
}

void CpuOps::multiply_rows(const float* w, int64_t n_out, R x, float* out, int64_t out_stride) {
  constexpr int64_t kRows = 16;
  pool().parallel_for((n_out + kRows - 1) / kRows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin * kRows; row < std::min(end * kRows, n_out); row += kRows) {
      kernels_.dot[size_t(WeightType::kF32)]({.rows = reinterpret_cast<const uint8_t*>(w + row * x.n_cols),
                                              .row_bytes = x.n_cols * int64_t{sizeof(float)},
                                              .n_rows = std::min(kRows, n_out - row),
                                              .x = x.data,
                                              .x_stride = x.n_cols,
                                              .n_x = x.n_rows,
                                              .n_cols = x.n_cols,
                                              .out = out + row,
                                              .out_stride = out_stride});
    }
  });
}

void CpuOps::head_backward(const float* d, int64_t n, int64_t vocab_size, const float* x, const float* table,
                           int64_t n_cols, float* dx, float* dtable) {
  dense_.multiply({d, n, vocab_size, 1}, {table, n_cols, 1, n_cols}, vocab_size, false, dx, n_cols);
  if (dtable == nullptr) return;
  dense_.multiply({d, vocab_size, 1, vocab_size}, {x, n_cols, 1, n_cols}, n, true, dtable, n_cols);
}

double CpuOps::cross_entropy(R x, const float* table, int64_t vocab_size, std::span<const int32_t> targets,
                             float factor, R dx, float* dtable) {
  const int64_t chunk = logit_rows(vocab_size, x.n_rows), d = x.n_cols;
  logits_.resize(size_t(chunk * vocab_size));
  sums_.assign(size_t(x.n_rows), 0.0);
  for (int64_t first = 0; first < x.n_rows; first += chunk) {
    const int64_t n = std::min(chunk, x.n_rows - first);
    multiply_rows(table, vocab_size, {x.row(first), n, d}, logits_.data(), vocab_size);
    for_rows(n, [&](int64_t i) {
      sums_[size_t(first + i)] =
          row_loss(logits_.data() + i * vocab_size, vocab_size, targets[size_t(first + i)], factor, dx.data != nullptr);
    });
    if (dx.data == nullptr) continue;
    head_backward(logits_.data(), n, vocab_size, x.row(first), table, d, dx.row(first), dtable);
  }
  double loss = 0;
  for (const double sum : sums_) loss += sum;
  return loss;
}

}  // namespace bitnet
