#pragma once

#include "base/result.h"
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

// Whether n bytes from `offset_bytes` of the tensor's data on lie within the tensor and the tensor within its file.
Status check_tensor_range(const StoredTensor& tensor, uint64_t offset_bytes, uint64_t n_bytes, uint64_t file_bytes,
                          const std::string& file);

}  // namespace bitnet
