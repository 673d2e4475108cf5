#pragma once

#include "kernels/backend.h"

#include <cstdint>

namespace bitnet {

// The tiled key/value cache (kernels/kv_tiles.h, numerics.md 14) in plain loops: one head's key and value [head_dim] to
// a position, and the attention of one query over n_seen positions; scores [n_seen] is scratch.
void store_tiled(const float* k, const float* v, const KvLayer& kv, int64_t kv_head, int64_t position);
void attend_tiled(const float* q, const KvLayer& kv, int64_t kv_head, int64_t n_seen, float* scores, float* out);

}  // namespace bitnet
