#include "base/half.h"
#include "kernels/float_spec.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/tiled_cache.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bitnet {
namespace {

float cached(const void* cache, DType dtype, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(cache)[index];
  if (dtype == DType::kF16) return f16_to_f32(static_cast<const uint16_t*>(cache)[index]);
  const auto* const block = static_cast<const uint8_t*>(cache) + index / 32 * 34;
  return f16_to_f32(uint16_t(block[0] | block[1] << 8)) * float(int8_t(block[2 + index % 32]));
}

}  // namespace

// numerics.md 8, 14.
void ReferenceBackend::attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                                 MatrixView out) const {
  float* const scores = static_cast<ReferenceStream&>(stream).scores.data();
  const int64_t d = kv.head_dim, n_heads = q.n_cols / d, heads_per_kv = n_heads / kv.n_kv_heads;
  const float scale = 1.0f / std::sqrt(float(d));
  for (int64_t t = 0; t < q.n_rows; ++t) {
    const int64_t n_seen = first_position + t + 1;
    for (int64_t head = 0; head < n_heads; ++head) {
      const float* const query = q.row(t) + head * d;
      if (kv.tiled()) {
        attend_tiled(query, kv, head / heads_per_kv, n_seen, scores, out.row(t) + head * d);
        continue;
      }
      const int64_t base = head / heads_per_kv * kv.n_ctx * d;  // of this head's keys and values
      float m = -std::numeric_limits<float>::infinity();
      for (int64_t p = 0; p < n_seen; ++p) {
        const auto product = [&](int64_t i) { return cached(kv.k, kv.dtype, base + p * d + i) * query[i]; };
        scores[p] = spec::lane_sum(d, product) * scale;
        m = spec::max(scores[p], m);
      }
      for (int64_t p = 0; p < n_seen; ++p) scores[p] = spec::exp(scores[p] - m);
      const float inverse = 1.0f / spec::lane_sum(n_seen, [&](int64_t p) { return scores[p]; });
      for (int64_t i = 0; i < d; ++i) {
        float sum = 0.0f;
        for (int64_t tile = 0; tile < n_seen; tile += kValueTile) {
          float part = 0.0f;
          for (int64_t p = tile; p < std::min<int64_t>(tile + kValueTile, n_seen); ++p) {
            part += scores[p] * cached(kv.v, kv.dtype, base + p * d + i);
          }
          sum += part;
        }
        out.row(t)[head * d + i] = sum * inverse;
      }
    }
  }
}

}  // namespace bitnet
