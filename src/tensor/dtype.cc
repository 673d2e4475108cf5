#include "tensor/dtype.h"

#include "base/checked.h"

#include <fmt/ranges.h>
#include <array>
#include <cctype>

namespace bitnet {
namespace {

constexpr std::array<DTypeInfo, 31> kTypes = {{
    {"F32", 1, 4},         {"F16", 1, 2},      {"BF16", 1, 2},     {"F64", 1, 8},      {"I8", 1, 1},
    {"I16", 1, 2},         {"I32", 1, 4},      {"I64", 1, 8},      {"U8", 1, 1},       {"U16", 1, 2},
    {"U32", 1, 4},         {"U64", 1, 8},      {"BOOL", 1, 1},     {"I4", 2, 1},       {"Q4_0", 32, 18},
    {"Q8_0", 32, 34},      {"Q4_K", 256, 144}, {"Q6_K", 256, 210}, {"TQ1_0", 256, 54}, {"TQ2_0", 256, 66},
    {"I2_S", 128, 32},     {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},   {"Q2_K", 256, 84},
    {"Q3_K", 256, 110},    {"Q5_K", 256, 176}, {"Q1_0", 128, 18},  {"Q2_0", 64, 18},   {"IQ1_BN", 64, 13, 2},
    {"IQ2_BN", 64, 16, 4},
}};
constexpr uint64_t kI2sTail_bytes = 32;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::toupper(static_cast<unsigned char>(a[i])) != std::toupper(static_cast<unsigned char>(b[i]))) return false;
  }
  return true;
}

}  // namespace

const DTypeInfo& dtype_info(DType type) { return kTypes[size_t(type)]; }

bool is_element(DType type) { return type <= DType::kBool; }
bool is_float(DType type) { return type <= DType::kF64; }
bool is_integer(DType type) { return type >= DType::kI8 && type <= DType::kU64; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (equal_ignoring_case(kTypes[i].name, name)) return DType(i);
  }
  return std::nullopt;
}

bool is_ternary(DType type) {
  switch (type) {
    case DType::kI2_S:
    case DType::kTQ1_0:
    case DType::kTQ2_0:
    case DType::kQ1_0:
    case DType::kIQ1_BN:
    case DType::kIQ2_BN: return true;
    default: return false;
  }
}

std::optional<uint64_t> element_count(const Shape& shape) {
  uint64_t count = 1;
  bool wrapped = false, empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    empty |= dim == 0;
    const auto product = checked_mul(count, uint64_t(dim == 0 ? 1 : dim));
    wrapped |= !product;
    count = product.value_or(1);
  }
  if (wrapped) return std::nullopt;  // [0, 2^40, 2^40] too: no reader of a shape should meet such numbers
  return empty ? 0 : count;
}

Result<uint64_t> tensor_bytes(DType type, const Shape& shape) {
  const DTypeInfo& info = dtype_info(type);
  const auto count = element_count(shape);
  if (!count) return invalid_input("the shape {} has more values than 64 bits can count", shape_string(shape));
  const uint64_t block = uint64_t(info.block_size);
  const uint64_t row = shape.empty() ? 1 : uint64_t(shape.back());
  if (type == DType::kI2_S ? *count % block != 0 : row % block != 0) {
    return invalid_input("{} stores blocks of {} values, which {} of {} do not fill evenly", info.name, block,
                         type == DType::kI2_S ? *count : row, type == DType::kI2_S ? "this tensor" : "each row");
  }
  const auto bytes = checked_mul(*count / block, uint64_t(info.block_bytes));
  // Fewer rows than values, and their scales are fewer bytes than their blocks: this product does not wrap.
  const uint64_t n_rows = row == 0 ? 0 : *count / row;
  const uint64_t beside = type == DType::kI2_S ? kI2sTail_bytes : n_rows * uint64_t(info.row_scale_bytes);
  const auto total = bytes ? checked_add(*bytes, beside) : std::nullopt;
  if (!total || *total > uint64_t(INT64_MAX)) {
    return invalid_input("{} {} needs more bytes than a file can have", info.name, shape_string(shape));
  }
  return *total;
}

std::string shape_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace bitnet
