#include "train/core/shard_layout.h"

#include <algorithm>

namespace bitnet {
namespace {

constexpr int64_t kLeastValues = int64_t{4} << 20;  // of a bucket: 16 MB, of which links give their full rate

}  // namespace

ShardLayout ShardLayout::make(const ModelConfig& config, int n_ranks) {
  ShardLayout shards;
  shards.n_ranks_ = n_ranks;
  shards.layout_ = ParameterLayout(config.n_layers);
  const std::vector<WeightSpec> specs = list_weights(config);
  const auto close = [&](int64_t begin, int64_t layer) {
    shards.layout_.align(n_ranks * kParameterAlignment);
    const int64_t piece = (shards.layout_.n_values() - begin) / n_ranks;
    shards.buckets_.push_back({begin, piece, begin / n_ranks, layer});
  };
  for (const WeightSpec& spec : specs) {
    if (spec.kind != WeightKind::kLinear) shards.layout_.add(spec);
  }
  close(0, -1);
  int64_t begin = shards.layout_.n_values(), first_layer = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (const WeightSpec& spec : specs) {
      if (spec.kind == WeightKind::kLinear && spec.layer == layer) shards.layout_.add(spec);
    }
    if (shards.layout_.n_values() - begin < kLeastValues && layer + 1 < config.n_layers) continue;
    close(begin, first_layer);
    begin = shards.layout_.n_values();
    first_layer = layer + 1;
  }
  return shards;
}

const ShardBucket& ShardLayout::bucket_of(const ParameterSlice& slice) const {
  const auto after = std::upper_bound(buckets_.begin(), buckets_.end(), slice.offset,
                                      [](int64_t offset, const ShardBucket& bucket) { return offset < bucket.begin; });
  return *std::prev(after);
}

ShardLayout::Part ShardLayout::part(const ParameterSlice& slice, int rank) const {
  const ShardBucket& bucket = bucket_of(slice);
  const int64_t mine = bucket.begin + rank * bucket.piece;
  const int64_t begin = std::clamp(slice.offset, mine, mine + bucket.piece);
  const int64_t end = std::clamp(slice.offset + slice.n_values, mine, mine + bucket.piece);
  return {begin - slice.offset, end - begin, bucket.place + begin - mine};
}

}  // namespace bitnet
