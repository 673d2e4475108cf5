#include "runtime/kv_cache.h"

#include "base/checked.h"

#include <optional>

namespace bitnet {
namespace {

constexpr uint64_t kAlign_bytes = 64;

// Bytes of one layer's keys (or values), padded to whole cache lines.
std::optional<uint64_t> plane_bytes(const KvLayer& layer) {
  constexpr int64_t kMaxPositions = int64_t{1} << 40;  // more, and a head's own bytes may wrap
  if (layer.n_ctx > kMaxPositions) return std::nullopt;
  std::optional<uint64_t> bytes = checked_mul(uint64_t(layer.n_kv_heads), uint64_t(layer.head_bytes()));
  if (bytes) bytes = checked_add(*bytes, kAlign_bytes - 1);
  if (bytes) bytes = *bytes / kAlign_bytes * kAlign_bytes;
  return bytes;
}

}  // namespace

DType cache_dtype(KvType type) {
  switch (type) {
    case KvType::kF32: return DType::kF32;
    case KvType::kQ8_0: return DType::kQ8_0;
    case KvType::kInt8: return DType::kI8;
    case KvType::kInt4: return DType::kI4;
    default: return DType::kF16;
  }
}

Result<KvCache> KvCache::create(const Backend& backend, const ModelConfig& config, DType dtype, int64_t n_ctx) {
  BN_RETURN_IF_ERROR(backend.check_kv(dtype, config.head_dim));
  const KvLayer shape = {nullptr, nullptr, dtype, config.n_kv_heads, n_ctx, config.head_dim};
  const std::optional<uint64_t> plane = plane_bytes(shape);
  const std::optional<uint64_t> total = plane ? checked_mul(*plane, 2 * uint64_t(config.n_layers)) : std::nullopt;
  if (!total) {
    return make_error(ErrorCode::kResource, "a key/value cache of {} positions is larger than any memory", n_ctx);
  }
  Result<Buffer> buffer = backend.allocate_cache(shape, config.n_layers, size_t(*plane));
  if (!buffer) {
    return std::move(buffer.error().add_context(fmt::format("taking a key/value cache of {} positions, {} layers, {}",
                                                            n_ctx, config.n_layers, dtype_info(dtype).name)));
  }
  KvCache cache;
  cache.buffer_ = *std::move(buffer);
  cache.layers_.resize(size_t(config.n_layers));
  std::byte* next = cache.buffer_.data();
  for (KvLayer& layer : cache.layers_) {
    layer = shape;
    layer.k = next;
    layer.v = next + *plane;
    next += 2 * *plane;
  }
  return cache;
}

}  // namespace bitnet
