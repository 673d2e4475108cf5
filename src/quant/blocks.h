#pragma once

#include "base/result.h"
#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// The values of `n_values` consecutive elements (whole blocks) as float32. For every type but I2_S and the integer
// types wider than 8 bits, which are refused.
Status dequantize(DType type, std::span<const std::byte> bytes, int64_t n_values, float* out);

// Encodes [n_rows, n_cols] to F32, F16, BF16, Q8_0 or Q6_K; other types and rows that do not fill whole blocks are
// refused with the reason. Q8_0 and Q6_K follow ggml's reference quantisers' definition (docs/formats/gguf.md).
Result<std::vector<std::byte>> quantize(DType type, std::span<const float> values, int64_t n_rows, int64_t n_cols);

}  // namespace bitnet
