#pragma once

#include "tensor/dtype.h"

#include <cstdint>
#include <string>

namespace bitnet {

// Where a tensor lies in a file. Shape is outermost first (GGUF's order is turned round at its reader and writer).
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t offset_bytes = 0;  // from the start of the file
  uint64_t size_bytes = 0;    // of the data, padding not counted
};

}  // namespace bitnet
