#pragma once

#include "format/stored_tensor.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace bitnet::fuzz {

using Int128 = __int128;

inline void require(bool holds) {
  if (!holds) __builtin_trap();
}

// The size of a tensor's data, worked out anew in numbers that cannot wrap.
inline Int128 true_bytes(const StoredTensor& tensor) {
  const Int128 too_many = Int128(1) << 64;
  Int128 count = 1;
  for (const int64_t dim : tensor.shape) {
    require(dim >= 0);
    count *= dim;
    require(count < too_many);
  }
  const DTypeInfo& info = dtype_info(tensor.dtype);
  require(count % info.block_size == 0);
  const Int128 row = tensor.shape.empty() ? 1 : tensor.shape.back(), n_rows = row == 0 ? Int128(0) : count / row;
  return count / info.block_size * info.block_bytes + (tensor.dtype == DType::kI2_S ? Int128(32) : Int128(0)) +
         n_rows * info.row_scale_bytes;
}

// Whatever a reader accepts: every tensor inside the file behind `data_begin`, aligned, none on top of another, and
// all of them together no longer than the file.
inline void check_tensors(const std::vector<StoredTensor>& tensors, uint64_t file_bytes, uint64_t alignment) {
  std::vector<const StoredTensor*> order;
  Int128 sum = 0;
  for (const StoredTensor& tensor : tensors) {
    require(!tensor.name.empty());
    require(true_bytes(tensor) == Int128(tensor.size_bytes));
    sum += Int128(tensor.size_bytes);
    require(Int128(tensor.offset_bytes) + Int128(tensor.size_bytes) <= Int128(file_bytes));
    require(tensor.offset_bytes % alignment == 0);
    order.push_back(&tensor);
  }
  require(sum <= Int128(file_bytes));
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return a->offset_bytes + a->size_bytes < b->offset_bytes + b->size_bytes;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->size_bytes == 0) continue;
    require(order[i - 1]->offset_bytes + order[i - 1]->size_bytes <= order[i]->offset_bytes);
  }
}

}  // namespace bitnet::fuzz
