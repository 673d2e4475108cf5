#pragma once

#include "base/result.h"
#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

inline constexpr uint64_t kMaxPickle_bytes = uint64_t{4} << 20;

// A tensor as a pickle of torch.save describes it: a view of a storage that lies elsewhere in the archive.
struct PickledTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::string storage;        // its key: the entry data/KEY
  int64_t storage_count = 0;  // values in the whole storage
  int64_t offset_count = 0;   // of the first value
  Shape shape;
  std::vector<int64_t> strides;  // in values
};

// The tensors of a pickled dict, in its order. A pickle is a program for a stack machine that may call anything; this
// machine knows the opcodes of protocol 2 that torch.save needs for a dict from names to tensors, and of all callables
// collections.OrderedDict, torch._utils._rebuild_tensor_v2 and the storage types, as words. Nothing is ever executed:
// any other opcode, callable or value is refused by name. Time and memory are proportional to the pickle's size.
// `name` stands in errors, which count bytes from the pickle's first.
Result<std::vector<PickledTensor>> read_pickled_tensors(std::span<const std::byte> pickle, const std::string& name);

}  // namespace bitnet
