#pragma once

#include "format/stored_tensor.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

namespace bitnet {

// Look-up of tensors by name: positions sorted by name. Sorting rather than hashing, so that no choice of names makes
// it slow, and positions rather than pointers, so that the owner may be copied.
class NameIndex {
 public:
  // A position whose name another tensor has too, or nothing when all names differ.
  std::optional<size_t> build(const std::vector<StoredTensor>& tensors) {
    order_.resize(tensors.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return tensors[a].name < tensors[b].name; });
    for (size_t i = 1; i < order_.size(); ++i) {
      if (tensors[order_[i - 1]].name == tensors[order_[i]].name) return order_[i];
    }
    return std::nullopt;
  }
  const StoredTensor* find(const std::vector<StoredTensor>& tensors, std::string_view name) const {
    const auto place = std::lower_bound(order_.begin(), order_.end(), name,
                                        [&](size_t i, std::string_view n) { return tensors[i].name < n; });
    return place != order_.end() && tensors[*place].name == name ? &tensors[*place] : nullptr;
  }

 private:
  std::vector<size_t> order_;
};

}  // namespace bitnet
