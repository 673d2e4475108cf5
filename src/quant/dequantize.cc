#include "base/half.h"
#include "quant/blocks.h"
#include "quant/small_blocks.h"
#include "quant/ternary_blocks.h"

#include <cstring>

namespace bitnet {
namespace {

float half_at(const uint8_t* p) { return f16_to_f32(uint16_t(p[0] | p[1] << 8)); }

template <class Stored, class Convert>
void widen(const uint8_t* in, int64_t n, float* out, Convert convert) {
  for (int64_t i = 0; i < n; ++i) {
    Stored stored;
    std::memcpy(&stored, in + i * int64_t(sizeof stored), sizeof stored);
    out[i] = convert(stored);
  }
}

void q8_0_block(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int p = 0; p < 32; ++p) out[p] = d * float(int8_t(block[2 + p]));
}

// 128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, d. Each half of 128 values: value 32 g + p takes its
// low nibble from byte 32 (g % 2) + p, below for g < 2 and above otherwise, and its high bits from bits 2g of byte p.
void q6_k_block(const uint8_t* block, float* out) {
  const float d = half_at(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + half * 64;
    const uint8_t* high = block + 128 + half * 32;
    for (int g = 0; g < 4; ++g) {
      for (int p = 0; p < 32; ++p) {
        const int q = (low[g % 2 * 32 + p] >> (g / 2 * 4) & 15) | (high[p] >> (2 * g) & 3) << 4;
        const float scale = d * float(int8_t(block[192 + half * 8 + g * 2 + p / 16]));
        out[half * 128 + g * 32 + p] = scale * float(q - 32);
      }
    }
  }
}

void q1_0_block(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 128; ++i) out[i] = (block[2 + i / 8] >> i % 8 & 1) != 0 ? d : -d;
}
void q2_0_block(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 64; ++i) out[i] = d * float((block[2 + i / 4] >> (i % 4 * 2) & 3) - 1);
}

// Rows of [scale][blocks].
template <class Block, int64_t kScaleBytes>
Status ternary_rows(const uint8_t* bytes, int64_t n_rows, int64_t n_cols, float* out) {
  uint8_t codes[Block::kValues];
  for (int64_t row = 0; row < n_rows; ++row) {
    float scale;
    if constexpr (kScaleBytes == 2) {
      scale = half_at(bytes);
    } else {
      std::memcpy(&scale, bytes, sizeof scale);
    }
    bytes += kScaleBytes;
    for (int64_t i = 0; i < n_cols / Block::kValues; ++i, bytes += Block::kBytes, out += Block::kValues) {
      if (!Block::decode(bytes, codes)) {
        return invalid_input("row {}, block {} holds a code that stands for no ternary value", row, i);
      }
      for (int64_t k = 0; k < Block::kValues; ++k) out[k] = scale * float(int(codes[k]) - 1);
    }
  }
  return ok();
}

template <class Block>
Status ternary_blocks(const uint8_t* bytes, int64_t n_blocks, float* out) {
  uint8_t codes[Block::kValues];
  for (int64_t i = 0; i < n_blocks; ++i, bytes += Block::kBytes, out += Block::kValues) {
    if (!Block::decode(bytes, codes)) return invalid_input("block {} holds a code that stands for no ternary value", i);
    const float d = half_at(bytes + Block::kScaleOffset);
    for (int64_t k = 0; k < Block::kValues; ++k) out[k] = d * float(int(codes[k]) - 1);
  }
  return ok();
}

template <int kValues, int kBytes>
void blocks(const uint8_t* bytes, int64_t n_blocks, float* out, void (*block)(const uint8_t*, float*)) {
  for (int64_t i = 0; i < n_blocks; ++i) block(bytes + i * kBytes, out + i * kValues);
}

}  // namespace

Status dequantize(DType type, std::span<const std::byte> bytes, int64_t n_values, float* out) {
  const DTypeInfo& info = dtype_info(type);
  if (info.row_scale_bytes != 0) return unsupported("{} values have a scale a row and are read by rows", info.name);
  if (n_values < 0 || n_values % info.block_size != 0) {
    return invalid_argument("{} values do not fill {} blocks of {}", n_values, info.name, info.block_size);
  }
  const int64_t n_blocks = n_values / info.block_size;
  if (bytes.size() / uint64_t(info.block_bytes) != uint64_t(n_blocks) ||
      bytes.size() % uint64_t(info.block_bytes) != 0) {
    return invalid_argument("{} {} values do not take {} bytes", n_values, info.name, bytes.size());
  }
  const auto* in = reinterpret_cast<const uint8_t*>(bytes.data());
  switch (type) {
    case DType::kF32: std::memcpy(out, in, bytes.size()); return ok();
    case DType::kF16: widen<uint16_t>(in, n_values, out, f16_to_f32); return ok();
    case DType::kBF16: widen<uint16_t>(in, n_values, out, bf16_to_f32); return ok();
    case DType::kF64: widen<double>(in, n_values, out, [](double v) { return float(v); }); return ok();
    case DType::kI8: widen<int8_t>(in, n_values, out, [](int8_t v) { return float(v); }); return ok();
    case DType::kU8: widen<uint8_t>(in, n_values, out, [](uint8_t v) { return float(v); }); return ok();
    case DType::kBool: widen<uint8_t>(in, n_values, out, [](uint8_t v) { return v ? 1.0f : 0.0f; }); return ok();
    case DType::kQ4_0: blocks<32, 18>(in, n_blocks, out, decode_q4_0); return ok();
    case DType::kQ8_0: blocks<32, 34>(in, n_blocks, out, q8_0_block); return ok();
    case DType::kQ4_1: blocks<32, 20>(in, n_blocks, out, decode_q4_1); return ok();
    case DType::kQ5_0: blocks<32, 22>(in, n_blocks, out, decode_q5_0); return ok();
    case DType::kQ5_1: blocks<32, 24>(in, n_blocks, out, decode_q5_1); return ok();
    case DType::kQ2_K: blocks<256, 84>(in, n_blocks, out, decode_q2_k); return ok();
    case DType::kQ3_K: blocks<256, 110>(in, n_blocks, out, decode_q3_k); return ok();
    case DType::kQ4_K: blocks<256, 144>(in, n_blocks, out, decode_q4_k); return ok();
    case DType::kQ5_K: blocks<256, 176>(in, n_blocks, out, decode_q5_k); return ok();
    case DType::kQ1_0: blocks<128, 18>(in, n_blocks, out, q1_0_block); return ok();
    case DType::kQ2_0: blocks<64, 18>(in, n_blocks, out, q2_0_block); return ok();
    case DType::kQ6_K: blocks<256, 210>(in, n_blocks, out, q6_k_block); return ok();
    case DType::kTQ1_0: return ternary_blocks<ternary::TQ1Block>(in, n_blocks, out);
    case DType::kTQ2_0: return ternary_blocks<ternary::TQ2Block>(in, n_blocks, out);
    default: return unsupported("{} values cannot be read as floats", info.name);
  }
}

Status dequantize_rows(DType type, std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols, float* out) {
  const DTypeInfo& info = dtype_info(type);
  if (info.row_scale_bytes == 0) return dequantize(type, bytes, n_rows * n_cols, out);
  BN_ASSIGN_OR_RETURN(const uint64_t expected, tensor_bytes(type, {n_rows, n_cols}));
  if (bytes.size() != expected) {
    return invalid_argument("{} [{}, {}] takes {} bytes, found {}", info.name, n_rows, n_cols, expected, bytes.size());
  }
  const auto* in = reinterpret_cast<const uint8_t*>(bytes.data());
  if (type == DType::kIQ1_BN) return ternary_rows<ternary::Iq1BnBlock, 2>(in, n_rows, n_cols, out);
  return ternary_rows<ternary::Iq2BnBlock, 4>(in, n_rows, n_cols, out);
}

}  // namespace bitnet
