#pragma once

#include "train/core/parameters.h"

#include <cstdint>
#include <vector>

namespace bitnet {

// Parameters that lie one after the other and are shared evenly: rank r has the r-th `piece` of them.
struct ShardBucket {
  int64_t begin = 0;  // in the layout
  int64_t piece = 0;  // values, a multiple of kParameterAlignment
  int64_t place = 0;  // of a rank's piece among all that it has
  int64_t layer = 0;  // whose backward pass completes its gradients, the first one of its layers; -1: embed_backward()
};

// How several ranks share the parameters of a model, their gradients and moments: a layout of its own, with all that is
// no linear in the first bucket and the linears of one or a few layers in each of the others. Immutable.
class ShardLayout {
 public:
  static ShardLayout make(const ModelConfig& config, int n_ranks);

  int n_ranks() const { return n_ranks_; }
  const ParameterLayout& layout() const { return layout_; }  // n_values(): all pieces of all ranks
  const std::vector<ShardBucket>& buckets() const { return buckets_; }
  int64_t n_shard_values() const { return layout_.n_values() / n_ranks_; }  // that a rank has

  const ShardBucket& bucket_of(const ParameterSlice& slice) const;  // a slice of the layout

  // What a rank has of a weight of the layout: values from `first` of it on; n may be 0.
  struct Part {
    int64_t first = 0;
    int64_t n = 0;
    int64_t place = 0;  // among all that the rank has
  };
  Part part(const ParameterSlice& slice, int rank) const;

 private:
  int n_ranks_ = 1;
  ParameterLayout layout_;
  std::vector<ShardBucket> buckets_;
};

}  // namespace bitnet
