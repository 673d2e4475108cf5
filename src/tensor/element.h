#pragma once

#include "base/half.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <type_traits>

namespace bitnet {

// The C++ types of single elements; F16 and BF16 are bit patterns.
struct F16 {
  uint16_t bits = 0;
};
struct BF16 {
  uint16_t bits = 0;
};

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  if constexpr (std::is_same_v<T, double>) return DType::kF64;
  if constexpr (std::is_same_v<T, F16>) return DType::kF16;
  if constexpr (std::is_same_v<T, BF16>) return DType::kBF16;
  if constexpr (std::is_same_v<T, int8_t>) return DType::kI8;
  if constexpr (std::is_same_v<T, int16_t>) return DType::kI16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kI32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::kI64;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::kU8;
  if constexpr (std::is_same_v<T, uint16_t>) return DType::kU16;
  if constexpr (std::is_same_v<T, uint32_t>) return DType::kU32;
  if constexpr (std::is_same_v<T, uint64_t>) return DType::kU64;
  if constexpr (std::is_same_v<T, bool>) return DType::kBool;
}

// Floats as they are computed with: F16 and BF16 in float.
inline float to_float(float v) { return v; }
inline float to_float(F16 v) { return f16_to_f32(v.bits); }
inline float to_float(BF16 v) { return bf16_to_f32(v.bits); }

// Calls fn(T()) with the C++ type of a type for which is_element() holds.
template <class Fn>
decltype(auto) visit_element(DType type, Fn&& fn) {
  switch (type) {
    case DType::kF64: return fn(double());
    case DType::kF16: return fn(F16());
    case DType::kBF16: return fn(BF16());
    case DType::kI8: return fn(int8_t());
    case DType::kI16: return fn(int16_t());
    case DType::kI32: return fn(int32_t());
    case DType::kI64: return fn(int64_t());
    case DType::kU8: return fn(uint8_t());
    case DType::kU16: return fn(uint16_t());
    case DType::kU32: return fn(uint32_t());
    case DType::kU64: return fn(uint64_t());
    case DType::kBool: return fn(bool());
    default: return fn(float());
  }
}

}  // namespace bitnet
