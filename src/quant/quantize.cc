#include "base/half.h"
#include "quant/blocks.h"
#include "quant/q6_k.h"
#include "quant/small_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr float kF16Max = 65504.0f;

Error bad_value(DType type, std::span<const float> values, int64_t n_cols, size_t at) {
  return unsupported("row {}, column {}: {} cannot be kept as {}", int64_t(at) / n_cols, int64_t(at) % n_cols,
                     values[at], dtype_info(type).name);
}

Status to_f16(std::span<const float> values, int64_t n_cols, uint8_t* out) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = f32_to_f16(values[i]);
    if ((half & 0x7fff) == 0x7c00 && std::isfinite(values[i])) return bad_value(DType::kF16, values, n_cols, i);
    std::memcpy(out + 2 * i, &half, 2);
  }
  return ok();
}

void to_bf16(std::span<const float> values, uint8_t* out) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = f32_to_bf16(values[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

void q8_0_block(const float* x, uint8_t* out) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
  const uint16_t half = f32_to_f16(d);
  std::memcpy(out, &half, 2);
  for (int i = 0; i < 32; ++i) {
    // 1 / d is rounded (and infinite for the smallest d), so the product may pass 127.
    const float v = std::clamp(std::round(x[i] * inverse), -127.0f, 127.0f);
    out[2 + i] = uint8_t(int8_t(v == v ? v : 0.0f));
  }
}

// Block scales are binary16: values have to be finite and largest / steps_to_largest must fit.
Status check_block_values(DType type, std::span<const float> values, int64_t n_cols, float steps_to_largest) {
  for (size_t i = 0; i < values.size(); ++i) {
    const float magnitude = std::fabs(values[i]);
    if (!(magnitude <= kF16Max * steps_to_largest)) return bad_value(type, values, n_cols, i);
  }
  return ok();
}

template <int64_t kValues>
Result<std::vector<std::byte>> encode_blocks(DType type, std::span<const float> values, int64_t n_cols,
                                             float steps_to_largest, void (*block)(const float*, uint8_t*)) {
  BN_RETURN_IF_ERROR(check_block_values(type, values, n_cols, steps_to_largest));
  const int64_t n_blocks = int64_t(values.size()) / kValues, block_bytes = dtype_info(type).block_bytes;
  std::vector<std::byte> bytes(size_t(n_blocks * block_bytes));
  auto* out = reinterpret_cast<uint8_t*>(bytes.data());
  for (int64_t i = 0; i < n_blocks; ++i) block(values.data() + i * kValues, out + i * block_bytes);
  return bytes;
}

}  // namespace

void quantize_q8_0(std::span<const float> values, uint8_t* out) {
  for (size_t i = 0; i < values.size() / 32; ++i) q8_0_block(values.data() + i * 32, out + i * 34);
}

Result<std::vector<std::byte>> quantize(DType type, std::span<const float> values, int64_t n_rows, int64_t n_cols) {
  int64_t count;
  if (n_rows < 0 || n_cols <= 0 || __builtin_mul_overflow(n_rows, n_cols, &count) || uint64_t(count) != values.size()) {
    return invalid_argument("{} values for a matrix of [{}, {}]", values.size(), n_rows, n_cols);
  }
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, tensor_bytes(type, {n_rows, n_cols}));
  std::vector<std::byte> bytes(size_bytes);
  auto* out = reinterpret_cast<uint8_t*>(bytes.data());
  switch (type) {
    case DType::kF32: std::memcpy(out, values.data(), size_bytes); return bytes;
    case DType::kF16: BN_RETURN_IF_ERROR(to_f16(values, n_cols, out)); return bytes;
    case DType::kBF16: to_bf16(values, out); return bytes;
    case DType::kQ8_0:
      BN_RETURN_IF_ERROR(check_block_values(type, values, n_cols, 127.0f));
      quantize_q8_0(values, out);
      return bytes;
    case DType::kQ6_K:
      BN_RETURN_IF_ERROR(check_block_values(type, values, n_cols, 32.0f));
      for (int64_t i = 0; i < count / 256; ++i) encode_q6_k_block(values.data() + i * 256, out + i * 210);
      return bytes;
    case DType::kQ4_0: return encode_blocks<32>(type, values, n_cols, 8.0f, encode_q4_0);
    case DType::kQ4_1: return encode_blocks<32>(type, values, n_cols, 1.0f, encode_q4_1);
    case DType::kQ5_0: return encode_blocks<32>(type, values, n_cols, 16.0f, encode_q5_0);
    case DType::kQ5_1: return encode_blocks<32>(type, values, n_cols, 1.0f, encode_q5_1);
    case DType::kQ2_K: return encode_blocks<256>(type, values, n_cols, 15.0f, encode_q2_k);
    case DType::kQ3_K: return encode_blocks<256>(type, values, n_cols, 32.0f, encode_q3_k);
    case DType::kQ4_K: return encode_blocks<256>(type, values, n_cols, 63.0f, encode_q4_k);
    case DType::kQ5_K: return encode_blocks<256>(type, values, n_cols, 63.0f, encode_q5_k);
    default: return unsupported("{} is not a type that float weights are written in", dtype_info(type).name);
  }
}

}  // namespace bitnet
