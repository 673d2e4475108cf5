#pragma once

#include "base/result.h"
#include "tensor/tensor.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

// NumPy's .npy format (versions 1 to 3, little-endian), C and Fortran order: floats of 2, 4 and 8 bytes, integers,
// BOOL.
namespace bitnet {

// Everything is compared with the file's length; `name` is for messages. A tensor of the file's type.
Result<Tensor> parse_npy(std::span<const std::byte> file, const std::string& name);
Result<Tensor> read_npy(const std::string& path);
// Values in C order as version 1, atomically. BF16, which NumPy lacks, and packed types are refused.
Status write_npy(const std::string& path, TensorView values);

// The values as token ids, whatever their integer type; what no id can be is refused.
Result<std::vector<int32_t>> npy_ids(std::span<const std::byte> file, const std::string& name);

}  // namespace bitnet
