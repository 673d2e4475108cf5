#pragma once

#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace bitnet {

// Every element type that we read from files or keep in memory. Values are ours; files map to them by table.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kI16,
  kI32,
  kI64,
  kU8,
  kU16,
  kU32,
  kU64,
  kBool,
  kI4,  // two values a byte, in key/value caches only
  kQ4_0,
  kQ8_0,
  kQ4_K,
  kQ6_K,  // ggml blocks: 32, 32, 256, 256 values
  kTQ1_0,
  kTQ2_0,  // ggml ternary blocks of 256
  kI2_S,   // bitnet.cpp ternary: 2 bits a value and one float32 scale a tensor
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ5_K,  // ggml blocks: 32, 32, 32, 256, 256, 256
  kQ1_0,  // ggml blocks of 128: -d or +d
  kQ2_0,  // ggml blocks of 64: -d, 0, +d or +2d
  kIQ1_BN,
  kIQ2_BN,  // ik_llama.cpp ternary blocks of 64 behind a scale a row
};

struct DTypeInfo {
  std::string_view name;        // "Q6_K"
  int64_t block_size;           // values a block
  int64_t block_bytes;          // bytes a block; for I2_S the payload's 32 bytes a 128, its tail comes on top
  int64_t row_scale_bytes = 0;  // in front of each row's blocks
};
const DTypeInfo& dtype_info(DType type);

// Types of one value a block, with which tensors compute: floats, integers and BOOL.
bool is_element(DType type);
bool is_float(DType type);    // F32, F16, BF16, F64
bool is_integer(DType type);  // I8 to I64 and U8 to U64

// By name, any case ("i2_s", "Q8_0", "bf16").
std::optional<DType> parse_dtype(std::string_view name);

// I2_S, TQ1_0, TQ2_0, Q1_0, IQ1_BN, IQ2_BN: every value is -a, 0 or +a. Q2_0 may be too, by its values.
bool is_ternary(DType type);

// Bytes of a tensor of this type, row-major, rows of shape.back() values. Refused with the reason when the size wraps
// or the values do not fill whole blocks (per row; for I2_S over the whole tensor, whose 32-byte tail is counted).
using Shape = std::vector<int64_t>;  // outermost first: a linear layer's weight is [out, in]
Result<uint64_t> tensor_bytes(DType type, const Shape& shape);
std::optional<uint64_t> element_count(const Shape& shape);  // nothing when it wraps or a dimension is negative

std::string shape_string(const Shape& shape);  // "[2560, 6912]"

}  // namespace bitnet
