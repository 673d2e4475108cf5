#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// An array of NumPy's .npy format (versions 1 to 3, little-endian, C order): <f4, <f8, <f2, <i4, <i8, <u2, <u4, |u1.
struct NpyHeader {
  std::string descr;           // "<f4"
  std::vector<int64_t> shape;  // empty: one value
  size_t data_begin = 0;
  int64_t n_values = 1;
};
// Everything is compared with the file's length. `name` is for messages.
Result<NpyHeader> parse_npy(std::span<const std::byte> file, const std::string& name);
// The values, whatever their type; integers that the result cannot hold are refused.
Result<std::vector<float>> npy_floats(std::span<const std::byte> file, const std::string& name);
Result<std::vector<int32_t>> npy_ids(std::span<const std::byte> file, const std::string& name);

}  // namespace bitnet
