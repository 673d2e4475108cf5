#pragma once

#include "bitnet/session.h"
#include "kernels/backend.h"
#include "memory/buffer.h"
#include "model/config.h"

#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

DType cache_dtype(KvType type);

// Keys and values of every layer for up to n_ctx positions, in one allocation of the back end. Pages that no token has
// reached yet cost nothing.
class KvCache {
 public:
  // A `dtype` that the back end does not have for such heads is refused (Backend::check_kv). A size that wraps or
  // cannot be had is kResource.
  static Result<KvCache> create(const Backend& backend, const ModelConfig& config, DType dtype, int64_t n_ctx);

  KvCache() = default;
  std::span<const KvLayer> layers() const { return layers_; }  // [n_layers]
  size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  Buffer buffer_;
  std::vector<KvLayer> layers_;
};

}  // namespace bitnet
