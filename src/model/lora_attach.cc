#include "base/checked.h"
#include "model/lora_adapter.h"
#include "model/model.h"

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

namespace bitnet {
namespace {

Result<std::unique_ptr<Matrix>> prepare(const Backend& backend, const std::vector<float>& values, int64_t n_rows,
                                        int64_t n_cols, ThreadPool& pool) {
  FloatSource source;
  source.n_rows = n_rows;
  source.n_cols = n_cols;
  source.read_rows = [&values, n_cols](int64_t row_begin, int64_t n, std::byte* out) -> Status {
    std::memcpy(out, values.data() + row_begin * n_cols, size_t(n * n_cols) * sizeof(float));
    return ok();
  };
  return backend.prepare(source, pool);
}

// Values [n_rows, n_cols] with zeros behind each row and below, [to_rows, to_cols].
std::vector<float> padded(const std::vector<float>& values, int64_t n_rows, int64_t n_cols, int64_t to_rows,
                          int64_t to_cols, float factor) {
  std::vector<float> out(size_t(to_rows * to_cols));
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t i = 0; i < n_cols; ++i) out[size_t(r * to_cols + i)] = values[size_t(r * n_cols + i)] * factor;
  }
  return out;
}

}  // namespace

Status attach_lora(const LoraAdapter& adapter, double scale, ThreadPool& pool, ModelImpl& model) {
  const float factor = float(adapter.scale * scale);
  if (!std::isfinite(factor)) return invalid_argument("{}: a scale of {} is no finite number", adapter.path, scale);
  // Zeros up to whole lanes change no sum, and products of whole lanes are several times as fast.
  constexpr int64_t kLanes = 16;
  const int64_t whole = round_up(adapter.rank, kLanes), rank = whole <= model.config.d_model ? whole : adapter.rank;
  for (const LoraPair& pair : adapter.pairs) {
    const Shape& shape = pair.linear.shape;
    LoraLayer& lora = linear_of(model.layers[size_t(pair.linear.layer)], pair.linear.role).lora;
    const std::vector<float> a = padded(pair.a, adapter.rank, shape[1], rank, shape[1], 1.0f),
                             b = padded(pair.b, shape[0], adapter.rank, shape[0], rank, factor);
    BN_ASSIGN_OR_RETURN(lora.a, prepare(*model.backend, a, rank, shape[1], pool));
    BN_ASSIGN_OR_RETURN(lora.b, prepare(*model.backend, b, shape[0], rank, pool));
    for (const Matrix* const matrix : {lora.a.get(), lora.b.get()}) {
      model.info.memory_bytes += matrix->size_bytes();
      model.info.bytes_per_token += matrix->bytes_per_product();
      model.info.ops_per_token += 2 * uint64_t(matrix->n_rows() * matrix->n_cols());
    }
  }
  model.lora_rank = rank;
  return ok();
}

}  // namespace bitnet
