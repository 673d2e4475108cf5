#include "base/half.h"
#include "quant/ternary.h"
#include "quant/ternary_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

using namespace ternary;

struct Source {
  TernaryLayout layout;
  int64_t n_rows, n_cols;
  const uint8_t* codes;
  const TernaryScales& scales;
};

Status check_single_scale(const Source& source) {
  if (source.scales.groups.empty()) return ok();
  Error error = unsupported("{} has one scale a matrix; these weights have one for every {} columns of a row",
                            ternary_layout_name(source.layout), source.scales.group_cols);
  error.suggestion = "use TQ2_0 or TQ1_0, which keep a scale for every 256 columns";
  return error;
}

template <class Block>
Status encode_i2s(const Source& source, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  const float scale = source.scales.tensor;
  if (!std::isnormal(scale) || scale < 0.0f) {
    return invalid_argument("a ternary scale of {}, expected a finite number above 0", scale);
  }
  const int64_t count = source.n_rows * source.n_cols;
  for (int64_t i = 0; i < count / Block::kValues; ++i) {
    Block::encode(source.codes + i * Block::kValues, out + i * Block::kBytes);
  }
  std::memcpy(out + count / 4, &scale, sizeof scale);
  return ok();
}

// The scale of a block as binary16, or why it has none.
Result<uint16_t> half_scale(const Source& source, int64_t row, float scale) {
  const uint16_t bits = f32_to_f16(scale);
  const float rounded = f16_to_f32(bits);
  if (std::isfinite(rounded) && rounded > 0.0f) return bits;
  return unsupported("row {}: the scale {} does not fit in {}'s 16-bit float", row, scale,
                     ternary_layout_name(source.layout));
}

template <class Block>
Status encode_blocks(const Source& source, uint8_t* out) {
  const TernaryScales& scales = source.scales;
  const int64_t group_cols = scales.groups.empty() ? source.n_cols : scales.group_cols;
  const bool fits = group_cols > 0 && group_cols % Block::kValues == 0 && source.n_cols % group_cols == 0;
  if (!fits) {
    return unsupported("{} keeps one scale for 256 columns; these weights have one for every {} of {} columns",
                       ternary_layout_name(source.layout), group_cols, source.n_cols);
  }
  const int64_t groups_per_row = source.n_cols / group_cols;
  if (!scales.groups.empty() && int64_t(scales.groups.size()) != source.n_rows * groups_per_row) {
    return invalid_argument("{} group scales for {} rows of {} groups", scales.groups.size(), source.n_rows,
                            groups_per_row);
  }
  const int64_t blocks_per_row = source.n_cols / Block::kValues;
  for (int64_t row = 0; row < source.n_rows; ++row) {
    for (int64_t b = 0; b < blocks_per_row; ++b) {
      const int64_t index = row * blocks_per_row + b;
      const int64_t group = row * groups_per_row + b * Block::kValues / group_cols;
      const float scale = scales.groups.empty() ? scales.tensor : scales.groups[size_t(group)];
      BN_ASSIGN_OR_RETURN(const uint16_t bits, half_scale(source, row, scale));
      uint8_t* block = out + index * Block::kBytes;
      Block::encode(source.codes + index * Block::kValues, block);
      block[Block::kScaleOffset] = uint8_t(bits);
      block[Block::kScaleOffset + 1] = uint8_t(bits >> 8);
    }
  }
  return ok();
}

Status encode_hf(const Source& source, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  const int64_t n_packed_rows = (source.n_rows + 3) / 4;
  for (int64_t row = 0; row < source.n_rows; ++row) {
    const int shift = int(row / n_packed_rows) * 2;
    const uint8_t* codes = source.codes + row * source.n_cols;
    uint8_t* packed = out + row % n_packed_rows * source.n_cols;
    for (int64_t c = 0; c < source.n_cols; ++c) packed[c] |= uint8_t(codes[c] << shift);
  }
  return ok();
}

Status encode(const Source& source, uint8_t* out) {
  switch (source.layout) {
    case TernaryLayout::kI2S: return encode_i2s<I2SBlock>(source, out);
    case TernaryLayout::kI2SArm64: return encode_i2s<I2SArm64Block>(source, out);
    case TernaryLayout::kTQ1_0: return encode_blocks<TQ1Block>(source, out);
    case TernaryLayout::kTQ2_0: return encode_blocks<TQ2Block>(source, out);
    case TernaryLayout::kHfPacked: return encode_hf(source, out);
  }
  return invalid_argument("unknown ternary layout");
}

}  // namespace

Result<std::vector<std::byte>> encode_ternary(TernaryLayout layout, int64_t n_rows, int64_t n_cols,
                                              std::span<const uint8_t> codes, const TernaryScales& scales) {
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, ternary_bytes(layout, n_rows, n_cols));
  if (codes.size() != uint64_t(n_rows) * uint64_t(n_cols)) {
    return invalid_argument("{} codes for a matrix of [{}, {}]", codes.size(), n_rows, n_cols);
  }
  uint8_t largest = 0;
  for (const uint8_t code : codes) largest = std::max(largest, code);
  if (largest > 2) {
    const int64_t at = std::find_if(codes.begin(), codes.end(), [](uint8_t c) { return c > 2; }) - codes.begin();
    return invalid_argument("row {}, column {}: {} is no ternary code", at / n_cols, at % n_cols, codes[size_t(at)]);
  }
  std::vector<std::byte> out(size_bytes);
  const Source source{layout, n_rows, n_cols, codes.data(), scales};
  BN_RETURN_IF_ERROR(encode(source, reinterpret_cast<uint8_t*>(out.data())));
  return out;
}

}  // namespace bitnet
