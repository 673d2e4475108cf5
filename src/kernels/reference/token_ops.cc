#include "base/half.h"
#include "kernels/float_spec.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/tiled_cache.h"
#include "quant/activations.h"
#include "quant/blocks.h"

#include <cmath>
#include <cstring>

// Operations on each token alone.
namespace bitnet {

Status ReferenceBackend::embed(Stream&, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const {
  const auto& weight = static_cast<const ReferenceFloatMatrix&>(table);
  for (size_t t = 0; t < ids.size(); ++t) weight.widen_row(ids[t], out.row(int64_t(t)));
  return ok();
}

void ReferenceBackend::rms_norm(Stream&, MatrixView x, std::span<const float> weight, float eps, MatrixView out) const {
  for (int64_t t = 0; t < x.n_rows; ++t) {
    const float* const row = x.row(t);
    const float sum = spec::pair_sum(x.n_cols, [&](int64_t i) { return row[i] * row[i]; });
    const float mean = sum * (1.0f / float(x.n_cols));
    const float r = 1.0f / std::sqrt(mean + eps);
    for (int64_t i = 0; i < x.n_cols; ++i) out.row(t)[i] = (x.row(t)[i] * r) * weight[size_t(i)];
  }
}

void ReferenceBackend::quantize(Stream&, MatrixView x, QuantizedView out) const {
  for (int64_t t = 0; t < x.n_rows; ++t) {
    int8_t* const q = out.codes + t * out.stride;
    const QuantizedRowInfo info = quantize_row_absmax(x.row(t), x.n_cols, q);
    std::memset(q + x.n_cols, 0, size_t(out.stride - x.n_cols));
    out.inv_scales[t] = info.inv_scale;
    out.sums[t] = info.sum;
  }
}

void ReferenceBackend::fake_quantize(Stream& stream, MatrixView x, MatrixView out) const {
  int8_t* const q = static_cast<ReferenceStream&>(stream).quantized.data();
  for (int64_t t = 0; t < x.n_rows; ++t) {
    const QuantizedRowInfo info = quantize_row_absmax(x.row(t), x.n_cols, q);
    for (int64_t i = 0; i < x.n_cols; ++i) out.row(t)[i] = float(q[i]) * info.inv_scale;
  }
}

void ReferenceBackend::rope(Stream&, MatrixView x, int64_t head_dim, const RopeTable& table,
                            int64_t first_position) const {
  for (int64_t t = 0; t < x.n_rows; ++t) {
    for (int64_t head = 0; head < x.n_cols / head_dim; ++head) {
      float* const h = x.row(t) + head * head_dim;
      for (int64_t i = 0; i < table.n_pairs; ++i) {
        const float c = table.cos[(first_position + t) * table.n_pairs + i];
        const float s = table.sin[(first_position + t) * table.n_pairs + i];
        const float a = h[i], b = h[i + table.n_pairs];
        h[i] = a * c - b * s;
        h[i + table.n_pairs] = b * c + a * s;
      }
    }
  }
}

void ReferenceBackend::store_kv(Stream&, MatrixView k, MatrixView v, const KvLayer& kv, int64_t first_position) const {
  const auto store = [&](void* cache, int64_t row, std::span<const float> values) {
    uint8_t* const to = static_cast<uint8_t*>(cache) + row * kv.row_bytes();
    if (kv.dtype == DType::kQ8_0) return quantize_q8_0(values, to);
    for (size_t i = 0; i < values.size(); ++i) {
      if (kv.dtype == DType::kF16) {
        reinterpret_cast<uint16_t*>(to)[i] = f32_to_f16(values[i]);
      } else {
        reinterpret_cast<float*>(to)[i] = values[i];
      }
    }
  };
  const size_t d = size_t(kv.head_dim);
  for (int64_t t = 0; t < k.n_rows; ++t) {
    for (int64_t head = 0; head < kv.n_kv_heads; ++head) {
      if (kv.tiled()) {
        store_tiled(k.row(t) + head * kv.head_dim, v.row(t) + head * kv.head_dim, kv, head, first_position + t);
        continue;
      }
      const int64_t row = head * kv.n_ctx + first_position + t;
      store(kv.k, row, {k.row(t) + head * kv.head_dim, d});
      store(kv.v, row, {v.row(t) + head * kv.head_dim, d});
    }
  }
}

void ReferenceBackend::gate(Stream&, GateActivation activation, MatrixView gate, MatrixView up, MatrixView out) const {
  for (int64_t i = 0; i < gate.n_rows * gate.n_cols; ++i) {
    const float g = gate.data[i];
    const float u = up.data[i];
    out.data[i] = activation == GateActivation::kRelu2 ? spec::relu2_gate(g, u) : spec::silu(g) * u;
  }
}

void ReferenceBackend::add(Stream&, MatrixView x, MatrixView y) const {
  for (int64_t i = 0; i < x.n_rows * x.n_cols; ++i) y.data[i] = y.data[i] + x.data[i];
}

}  // namespace bitnet
