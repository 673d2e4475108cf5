#include "base/half.h"
#include "quant/blocks.h"
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

// d, then 16 bytes: value p in the low nibble of byte p, value 16 + p in the high one.
void q4_0_block(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int p = 0; p < 16; ++p) {
    out[p] = d * float((block[2 + p] & 15) - 8);
    out[16 + p] = d * float((block[2 + p] >> 4) - 8);
  }
}

void q8_0_block(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int p = 0; p < 32; ++p) out[p] = d * float(int8_t(block[2 + p]));
}

struct Q4KScale {
  uint8_t scale, min;
};
// 12 bytes hold eight 6-bit scales and eight 6-bit minima: 0..3 in the low six bits of bytes 0-3 and 4-7; 4..7 with
// their low four bits in bytes 8-11 (scale below, minimum above) and their high two on top of bytes 0-3 and 4-7.
Q4KScale q4_k_scale(const uint8_t* packed, int group) {
  if (group < 4) return {uint8_t(packed[group] & 63), uint8_t(packed[group + 4] & 63)};
  const uint8_t low = packed[group + 4];
  return {uint8_t((low & 15) | packed[group - 4] >> 6 << 4), uint8_t(low >> 4 | packed[group] >> 6 << 4)};
}

// d, dmin, 12 bytes of scales, 128 bytes: each 32 bytes hold a group of 32 in the low nibbles and the next in the high.
void q4_k_block(const uint8_t* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const Q4KScale packed = q4_k_scale(block + 4, group);
    const float scale = d * float(packed.scale), min = dmin * float(packed.min);
    const uint8_t* nibbles = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int p = 0; p < 32; ++p) out[group * 32 + p] = scale * float(nibbles[p] >> shift & 15) - min;
  }
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
    case DType::kQ4_0: blocks<32, 18>(in, n_blocks, out, q4_0_block); return ok();
    case DType::kQ8_0: blocks<32, 34>(in, n_blocks, out, q8_0_block); return ok();
    case DType::kQ4_K: blocks<256, 144>(in, n_blocks, out, q4_k_block); return ok();
    case DType::kQ6_K: blocks<256, 210>(in, n_blocks, out, q6_k_block); return ok();
    case DType::kTQ1_0: return ternary_blocks<ternary::TQ1Block>(in, n_blocks, out);
    case DType::kTQ2_0: return ternary_blocks<ternary::TQ2Block>(in, n_blocks, out);
    default: return unsupported("{} values cannot be read as floats", info.name);
  }
}

}  // namespace bitnet
