#include "kernels/reference/tiled_cache.h"

#include "kernels/float_spec.h"
#include "quant/hadamard.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace bitnet {
namespace {

float rounded(float x) { return (x + kRoundMagic) - kRoundMagic; }

void rotate(std::vector<float>& x) {
  const size_t block = size_t(rotation_block(int64_t(x.size())));
  for (size_t at = 0; at < x.size(); at += block) walsh_hadamard(x.data() + at, int64_t(block));
}

struct EncodedHead {
  std::vector<int> codes;  // integers, of 4 bits the odd ones from -15 to 15
  float scale;
};
EncodedHead encode(const float* x, int64_t head_dim, int64_t bits) {
  std::vector<float> rotated(x, x + head_dim);
  rotate(rotated);
  float largest = kTileAbsmaxFloor;
  for (const float v : rotated) largest = spec::max(std::fabs(v), largest);
  EncodedHead head = {{}, largest / (bits == 8 ? 127.0f : 15.0f)};
  const float inverse = (bits == 8 ? 127.0f : 7.5f) / largest;
  for (const float v : rotated) {
    if (bits == 8) {
      head.codes.push_back(int(spec::max(spec::min(rounded(v * inverse), 127.0f), -127.0f)));
    } else {
      head.codes.push_back(2 * int(spec::max(spec::min(rounded(v * inverse + 7.5f), 15.0f), 0.0f)) - 15);
    }
  }
  return head;
}

// One head's keys or values.
class Tiles {
 public:
  Tiles(void* cache, const KvLayer& kv, int64_t kv_head, int64_t (*code_at)(int64_t, int64_t))
      : data_(static_cast<uint8_t*>(cache) + kv_head * kv.head_bytes()), kv_(kv), code_at_(code_at) {}

  float scale(int64_t position) const {
    float scale;
    std::memcpy(&scale, tile(position) + 4 * (position % kTilePositions), 4);
    return scale;
  }
  int code(int64_t dim, int64_t position) const {
    const int64_t half = kv_.head_dim / 2;
    if (kv_.bits() == 8) return int8_t(byte(dim, position));
    return 2 * (dim < half ? byte(dim, position) & 15 : byte(dim - half, position) >> 4) - 15;
  }
  void store(const EncodedHead& head, int64_t position) const {
    std::memcpy(tile(position) + 4 * (position % kTilePositions), &head.scale, 4);
    const int64_t half = kv_.head_dim / 2;
    for (int64_t c = 0; c < (kv_.bits() == 8 ? 2 * half : half); ++c) {
      const int first = head.codes[size_t(c)];
      byte(c, position) =
          uint8_t(kv_.bits() == 8 ? first : (first + 15) / 2 | (head.codes[size_t(c + half)] + 15) / 2 << 4);
    }
  }

 private:
  uint8_t* tile(int64_t position) const {
    return data_ + position / kTilePositions * kv_tile_bytes(kv_.head_dim, kv_.bits());
  }
  uint8_t& byte(int64_t column, int64_t position) const {
    return tile(position)[code_at_(column, position % kTilePositions)];
  }

  uint8_t* data_;
  const KvLayer& kv_;
  int64_t (*code_at_)(int64_t, int64_t);
};

}  // namespace

void store_tiled(const float* k, const float* v, const KvLayer& kv, int64_t kv_head, int64_t position) {
  Tiles(kv.k, kv, kv_head, key_code_at).store(encode(k, kv.head_dim, kv.bits()), position);
  Tiles(kv.v, kv, kv_head, value_code_at).store(encode(v, kv.head_dim, kv.bits()), position);
}

void attend_tiled(const float* q, const KvLayer& kv, int64_t kv_head, int64_t n_seen, float* scores, float* out) {
  const int64_t d = kv.head_dim;
  const Tiles keys(kv.k, kv, kv_head, key_code_at), values(kv.v, kv, kv_head, value_code_at);
  const EncodedHead query = encode(q, d, 8);
  const float unit = 1.0f / float(rotation_block(d)), factor = query.scale * unit;
  const float scale = 1.0f / std::sqrt(float(d));
  float m = -std::numeric_limits<float>::infinity();
  for (int64_t t = 0; t < n_seen; ++t) {
    int product = 0;
    for (int64_t i = 0; i < d; ++i) product += query.codes[size_t(i)] * keys.code(i, t);
    scores[t] = ((float(product) * keys.scale(t)) * factor) * scale;
    m = spec::max(scores[t], m);
  }
  for (int64_t t = 0; t < n_seen; ++t) scores[t] = spec::exp(scores[t] - m);
  const float inverse = 1.0f / spec::lane_sum(n_seen, [&](int64_t t) { return scores[t]; });

  std::vector<float> sums(size_t(d), 0.0f);
  for (int64_t first = 0; first < n_seen; first += kTilePositions) {
    const int64_t end = std::min(first + kTilePositions, n_seen);
    float largest = kTileAbsmaxFloor;
    for (int64_t t = first; t < end; ++t) largest = spec::max(scores[t] * values.scale(t), largest);
    const float to_code = 127.0f / largest;
    std::vector<int> weights;
    for (int64_t t = first; t < end; ++t) {
      const float code = rounded((scores[t] * values.scale(t)) * to_code);
      weights.push_back(int(spec::max(spec::min(code, 127.0f), 0.0f)));
    }
    for (int64_t i = 0; i < d; ++i) {
      int sum = 0;
      for (int64_t t = first; t < end; ++t) sum += weights[size_t(t - first)] * values.code(i, t);
      sums[size_t(i)] += float(sum) * (largest / 127.0f);
    }
  }
  for (float& sum : sums) sum *= inverse * unit;
  rotate(sums);
  std::copy(sums.begin(), sums.end(), out);
}

}  // namespace bitnet
