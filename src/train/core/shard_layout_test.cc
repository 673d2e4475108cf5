#include "train/core/shard_layout.h"
#include "train/test_model.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace bitnet {
namespace {

ModelConfig config_of(int64_t n_layers, int64_t d_model, int64_t d_ff, bool tied) {
  ModelConfig c = small_config();
  c.n_layers = n_layers;
  c.d_model = d_model;
  c.d_ff = d_ff;
  c.tied_head = tied;
  return c;
}

TEST(ShardLayout, EveryValueHasOneRank) {
  for (const ModelConfig& config : {config_of(2, 24, 40, true), config_of(3, 52, 75, false), config_of(1, 7, 5, true),
                                    config_of(3, 1000, 700, true)}) {
    const ParameterLayout whole = ParameterLayout::make(config);
    for (const int n_ranks : {1, 2, 3, 5, 8, 64}) {
      const ShardLayout shards = ShardLayout::make(config, n_ranks);
      ASSERT_EQ(shards.layout().slices().size(), whole.slices().size());
      EXPECT_EQ(shards.layout().n_parameters(), whole.n_parameters());
      // Buckets follow each other without gaps, in a rank's shard as in the layout.
      int64_t at = 0, place = 0;
      for (const ShardBucket& bucket : shards.buckets()) {
        EXPECT_EQ(bucket.begin, at);
        EXPECT_EQ(bucket.place, place);
        EXPECT_EQ(bucket.piece % kParameterAlignment, 0);
        at += n_ranks * bucket.piece;
        place += bucket.piece;
      }
      EXPECT_EQ(at, shards.layout().n_values());
      EXPECT_EQ(place, shards.n_shard_values());
      EXPECT_LT(shards.layout().n_values() - whole.n_values(),
                int64_t(shards.buckets().size()) * n_ranks * kParameterAlignment);

      std::vector<std::vector<int>> used(size_t(n_ranks), std::vector<int>(size_t(shards.n_shard_values())));
      for (const ParameterSlice& slice : shards.layout().slices()) {
        EXPECT_EQ(shards.layout().offset(slice.spec.role, slice.spec.layer), slice.offset);
        int64_t next = 0;
        for (int rank = 0; rank < n_ranks; ++rank) {
          const ShardLayout::Part part = shards.part(slice, rank);
          if (part.n == 0) continue;
          EXPECT_EQ(part.first, next);
          EXPECT_EQ(part.place % kParameterAlignment, 0);
          next += part.n;
          for (int64_t i = 0; i < part.n; ++i) ++used[size_t(rank)][size_t(part.place + i)];
        }
        EXPECT_EQ(next, slice.n_values) << slice.name << " of " << n_ranks;
      }
      int64_t n_used = 0;
      for (const auto& of_rank : used) {
        for (const int n : of_rank) {
          EXPECT_LE(n, 1);
          n_used += n;
        }
      }
      EXPECT_EQ(n_used, whole.n_parameters());
    }
  }
}

// The gradients of a bucket are complete when its first layer's backward pass is through.
TEST(ShardLayout, BucketsAreOfWholeLayers) {
  const ModelConfig config = config_of(7, 600, 800, true);  // 2 million values a layer
  const ShardLayout shards = ShardLayout::make(config, 2);
  ASSERT_GT(shards.buckets().size(), 3u);
  EXPECT_EQ(shards.buckets()[0].layer, -1);
  for (const ParameterSlice& slice : shards.layout().slices()) {
    size_t bucket = 0;
    while (bucket + 1 < shards.buckets().size() && shards.buckets()[bucket + 1].begin <= slice.offset) ++bucket;
    const int64_t layer = shards.buckets()[bucket].layer;
    if (slice.spec.kind != WeightKind::kLinear) {
      EXPECT_EQ(bucket, 0u) << slice.name;
    } else {
      EXPECT_GE(slice.spec.layer, layer) << slice.name;
      if (bucket + 1 < shards.buckets().size()) {
        EXPECT_LT(slice.spec.layer, shards.buckets()[bucket + 1].layer) << slice.name;
      }
    }
  }
}

}  // namespace
}  // namespace bitnet
