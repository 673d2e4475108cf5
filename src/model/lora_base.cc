#include "base/parallel_status.h"
#include "format/checksum.h"
#include "model/lora_adapter.h"
#include "quant/blocks.h"

#include <array>
#include <cstddef>
#include <variant>

namespace bitnet {
namespace {

Status hash_weight(const Checkpoint& base, const WeightSpec& spec, Checksum& sum) {
  const auto add = [&sum](const auto& values) { sum.update(std::as_bytes(std::span(values))); };
  if (spec.kind == WeightKind::kVector) {
    BN_ASSIGN_OR_RETURN(const std::vector<float> values, base.read_vector(spec));
    add(values);
    return ok();
  }
  BN_ASSIGN_OR_RETURN(const LinearSource source, base.linear(spec));
  const int64_t n_rows = spec.shape[0], n_cols = spec.shape[1];
  if (const auto* ternary = std::get_if<TernarySource>(&source.weight)) {
    std::vector<uint8_t> codes(size_t(n_rows * n_cols));
    BN_RETURN_IF_ERROR(ternary->read_codes(0, n_rows, codes.data()));
    add(codes);
    add(std::array{ternary->scales.tensor});
    add(ternary->scales.groups);
    return ok();
  }
  const auto& floats = std::get<FloatSource>(source.weight);
  BN_ASSIGN_OR_RETURN(const uint64_t row_bytes, tensor_bytes(floats.dtype, {n_cols}));
  std::vector<std::byte> stored(row_bytes);
  std::vector<float> row(static_cast<size_t>(n_cols));
  for (int64_t r = 0; r < n_rows; ++r) {
    BN_RETURN_IF_ERROR(floats.read_rows(r, 1, stored.data()));
    BN_RETURN_IF_ERROR(dequantize_rows(floats.dtype, stored, 1, n_cols, row.data()));
    add(row);
  }
  return ok();
}

}  // namespace

std::string lora_base_shape(const ModelConfig& c) {
  return fmt::format("{} layers, d_model {}, d_ff {}, {} heads, {} key/value heads, {} tokens", c.n_layers, c.d_model,
                     c.d_ff, c.n_heads, c.n_kv_heads, c.vocab_size);
}

Result<LoraBase> lora_base_of(const Checkpoint& base, ThreadPool& pool) {
  LoraBase out;
  out.shape = lora_base_shape(base.config());
  const std::vector<WeightSpec>& weights = base.weights();
  std::vector<uint64_t> sums(weights.size());
  Status hashed = parallel_status(pool, int64_t(weights.size()), [&](int64_t begin, int64_t end) -> Status {
    for (int64_t i = begin; i < end; ++i) {
      const WeightSpec& spec = weights[size_t(i)];
      if (spec.kind == WeightKind::kTable) continue;
      Checksum sum;
      BN_RETURN_IF_ERROR(hash_weight(base, spec, sum));
      sums[size_t(i)] = sum.value();
    }
    return ok();
  });
  if (!hashed) return std::move(hashed.error());
  Checksum all;
  all.update(std::as_bytes(std::span(out.shape)));
  all.update(std::as_bytes(std::span(sums)));
  out.checksum = fmt::format("{:016x}", all.value());
  return out;
}

}  // namespace bitnet
