#pragma once

#include "base/result.h"
#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// The values of `n_values` consecutive elements (whole blocks) as float32. For every type but I2_S and the integer
// types wider than 8 bits, which are refused. This defines the exact float32 of each weight (docs/numerics.md point 6);
// scales are binary16 widened to float32, integers converted, and each operation is rounded once, in this order:
//   Q4_0  d * (q - 8)        Q5_0  d * (q - 16)       Q8_0  d * q       Q4_1, Q5_1  d * q + m
//   Q2_K, Q4_K, Q5_K  (d * sc) * q - (dmin * m)       Q3_K  (d * (sc - 32)) * (q - 4)       Q6_K  (d * sc) * (q - 32)
//   TQ1_0, TQ2_0, Q2_0  d * (code - 1)                Q1_0  -d or +d    F64   rounded to float32
Status dequantize(DType type, std::span<const std::byte> bytes, int64_t n_values, float* out);
// The same of whole rows, which the types with a scale a row want: IQ1_BN, IQ2_BN  scale * (code - 1).
Status dequantize_rows(DType type, std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols, float* out);

// Encodes [n_rows, n_cols] to F32, F16, BF16 or a type of ggml's blocks that is not ternary; other types, rows that do
// not fill whole blocks and values that the type cannot hold (NaN and infinity in blocks, F16 overflow) are refused
// with the reason. Q8_0 is ggml's reference definition: d = max|x| / 127, q = round half away(x / d) with d before its
// rounding to binary16. The others search the scale (and minimum) of each group for the least squared error. Rows are
// independent of each other.
Result<std::vector<std::byte>> quantize(DType type, std::span<const float> values, int64_t n_rows, int64_t n_cols);

// The same Q8_0 definition for values of any size, as the key/value cache has them: whole blocks of 32 values to 34
// bytes. A NaN becomes 0; a block with an infinity, or a d beyond binary16, gives values that are not finite.
void quantize_q8_0(std::span<const float> values, uint8_t* out);

}  // namespace bitnet
