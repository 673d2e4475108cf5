#include "runtime/kv_cache.h"

#include "base/checked.h"

#include <optional>

namespace bitnet {
namespace {

constexpr uint64_t kAlign_bytes = 64;

// Bytes of one layer's keys (or values), padded to whole cache lines.
std::optional<uint64_t> plane_bytes(const ModelConfig& config, DType dtype, int64_t n_ctx) {
  const DTypeInfo& info = dtype_info(dtype);
  std::optional<uint64_t> bytes = checked_mul(uint64_t(config.n_kv_heads), uint64_t(config.head_dim / info.block_size));
  if (bytes) bytes = checked_mul(*bytes, uint64_t(n_ctx));
  if (bytes) bytes = checked_mul(*bytes, uint64_t(info.block_bytes));
  if (bytes) bytes = checked_add(*bytes, kAlign_bytes - 1);
  if (bytes) bytes = *bytes / kAlign_bytes * kAlign_bytes;
  return bytes;
}

}  // namespace

Result<KvCache> KvCache::create(const Backend& backend, const ModelConfig& config, DType dtype, int64_t n_ctx) {
  if (const int64_t block = dtype_info(dtype).block_size; config.head_dim % block != 0) {
    return invalid_argument(
        "a {} key/value cache has blocks of {} values, which this model's heads of {} do not fill; use f16 instead",
        dtype_info(dtype).name, block, config.head_dim);
  }
  const std::optional<uint64_t> plane = plane_bytes(config, dtype, n_ctx);
  const std::optional<uint64_t> total = plane ? checked_mul(*plane, 2 * uint64_t(config.n_layers)) : std::nullopt;
  if (!total) {
    return make_error(ErrorCode::kResource, "a key/value cache of {} positions is larger than any memory", n_ctx);
  }
  Result<Buffer> buffer = backend.allocate(size_t(*total));
  if (!buffer) {
    return std::move(buffer.error().add_context(fmt::format("taking a key/value cache of {} positions, {} layers, {}",
                                                            n_ctx, config.n_layers, dtype_info(dtype).name)));
  }
  KvCache cache;
  cache.buffer_ = *std::move(buffer);
  cache.layers_.resize(size_t(config.n_layers));
  std::byte* next = cache.buffer_.data();
  for (KvLayer& layer : cache.layers_) {
    layer.k = next;
    layer.v = next + *plane;
    layer.dtype = dtype;
    layer.n_kv_heads = config.n_kv_heads;
    layer.n_ctx = n_ctx;
    layer.head_dim = config.head_dim;
    next += 2 * *plane;
  }
  return cache;
}

}  // namespace bitnet
