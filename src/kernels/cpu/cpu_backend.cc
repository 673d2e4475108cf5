#include "kernels/cpu/cpu_backend.h"

#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/cpu_stream.h"

namespace bitnet {
namespace {

// Rows in parallel when there are several and the work is worth a fork; fn(row).
template <class Fn>
void for_each_row(Stream& stream, int64_t n_rows, int64_t n_cols, const Fn& fn) {
  constexpr int64_t kWorthForking = 8192;  // values; a fork and join costs about two microseconds
  if (n_rows == 1 || n_rows * n_cols < kWorthForking) {
    for (int64_t row = 0; row < n_rows; ++row) fn(row);
    return;
  }
  stream.pool().parallel_for(n_rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) fn(row);
  });
}

}  // namespace

Result<std::unique_ptr<Stream>> CpuBackend::new_stream(const StreamOptions& options) const {
  return CpuStream::create(options, kernels_);
}

Result<std::unique_ptr<Matrix>> CpuBackend::prepare(const TernarySource& source, ThreadPool& pool) const {
  return prepare_ternary(source, kernels_, pool);
}

Result<std::unique_ptr<Matrix>> CpuBackend::prepare(const FloatSource& source, ThreadPool& pool) const {
  return prepare_float(source, kernels_, pool);
}

Status CpuBackend::embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const {
  const auto& weights = static_cast<const CpuFloatMatrix&>(table);
  const auto widen = kernels_.widen[weights.type_index()];
  if (weights.loaded()) {
    for_each_row(stream, int64_t(ids.size()), out.n_cols,
                 [&](int64_t t) { widen(weights.row(ids[size_t(t)]), out.n_cols, out.row(t)); });
    return ok();
  }
  uint8_t* const scratch = static_cast<CpuStream&>(stream).codes(0);
  for (size_t t = 0; t < ids.size(); ++t) {
    BN_ASSIGN_OR_RETURN(const uint8_t* row, weights.read_rows(ids[t], 1, scratch));
    widen(row, out.n_cols, out.row(int64_t(t)));
  }
  return ok();
}

void CpuBackend::rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps,
                          MatrixView out) const {
  for_each_row(stream, x.n_rows, x.n_cols,
               [&](int64_t t) { kernels_.rms_norm(x.row(t), weight.data(), eps, x.n_cols, out.row(t)); });
}

void CpuBackend::quantize(Stream& stream, MatrixView x, QuantizedView out) const {
  for_each_row(stream, x.n_rows, x.n_cols, [&](int64_t t) {
    kernels_.quantize(x.row(t), x.n_cols, out.stride, out.codes + t * out.stride, out.inv_scales + t, out.sums + t);
  });
}

void CpuBackend::fake_quantize(Stream& stream, MatrixView x, MatrixView out) const {
  for_each_row(stream, x.n_rows, x.n_cols, [&](int64_t t) {
    if (x.data != out.data) std::memcpy(out.row(t), x.row(t), size_t(x.n_cols) * sizeof(float));
    kernels_.fake_quantize(out.row(t), x.n_cols);
  });
}

void CpuBackend::rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
                      int64_t first_position) const {
  for_each_row(stream, x.n_rows, x.n_cols, [&](int64_t t) {
    const int64_t at = (first_position + t) * table.n_pairs;
    for (int64_t col = 0; col + head_dim <= x.n_cols; col += head_dim) {
      kernels_.rope(x.row(t) + col, table.cos + at, table.sin + at, table.n_pairs);
    }
  });
}

void CpuBackend::store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv, int64_t first_position) const {
  const int64_t d = kv.head_dim, head_bytes = kv.head_bytes();
  // fn(values of one head, its cache, position) for keys or values.
  const auto for_each_head = [&](const float* row, void* cache, int64_t position, const auto& fn) {
    for (int64_t head = 0; head < kv.n_kv_heads; ++head) {
      fn(row + head * d, static_cast<uint8_t*>(cache) + head * head_bytes, position);
    }
  };
  if (kv.tiled()) {
    const TileKernels& tiles = kernels_.tiles[kv.bits() == 4];
    const auto into_tile = [&](auto store) {
      return [=, bytes = kv_tile_bytes(d, kv.bits())](const float* x, uint8_t* cache, int64_t position) {
        store(x, d, position % kTilePositions, cache + position / kTilePositions * bytes);
      };
    };
    for_each_row(stream, k.n_rows, k.n_cols, [&](int64_t t) {
      for_each_head(k.row(t), kv.k, first_position + t, into_tile(tiles.store_key));
      for_each_head(v.row(t), kv.v, first_position + t, into_tile(tiles.store_value));
    });
    return;
  }
  const auto narrow = [&, narrow = kernels_.narrow[size_t(weight_type(kv.dtype))]](const float* x, uint8_t* cache,
                                                                                   int64_t position) {
    narrow(x, d, cache + position * kv.row_bytes());
  };
  for_each_row(stream, k.n_rows, k.n_cols, [&](int64_t t) {
    for_each_head(k.row(t), kv.k, first_position + t, narrow);
    for_each_head(v.row(t), kv.v, first_position + t, narrow);
  });
}

void CpuBackend::gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up, MatrixView out) const {
  const auto apply = activation == GateActivation::kRelu2 ? kernels_.gate_relu2 : kernels_.gate_silu;
  for_each_row(stream, gate.n_rows, gate.n_cols,
               [&](int64_t t) { apply(gate.row(t), up.row(t), gate.n_cols, out.row(t)); });
}

void CpuBackend::add(Stream& stream, MatrixView x, MatrixView y) const {
  for_each_row(stream, x.n_rows, x.n_cols, [&](int64_t t) { kernels_.add(x.row(t), x.n_cols, y.row(t)); });
}

}  // namespace bitnet
