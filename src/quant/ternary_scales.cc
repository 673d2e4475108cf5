#include "base/half.h"
#include "quant/ternary.h"
#include "quant/ternary_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

using namespace ternary;

// A multiplier that a weight can have. Numbers below float32's normal range are damage, not weights.
bool usable_scale(float scale) { return std::isnormal(scale) && scale > 0.0f; }

Result<TernaryScales> i2s_scales(const TernaryView& view) {
  const uint64_t payload_bytes = uint64_t(view.n_rows * view.n_cols) / 4;
  float scale;
  std::memcpy(&scale, view.bytes.data() + payload_bytes, sizeof scale);
  TernaryScales scales;
  if (usable_scale(scale)) {
    scales.tensor = scale;
    return scales;
  }
  // Encoders that take the largest weight as scale write 0 for a matrix of zeros.
  const auto payload = view.bytes.first(payload_bytes);
  if (scale == 0.0f && std::all_of(payload.begin(), payload.end(), [](std::byte b) { return b == std::byte{0x55}; })) {
    return scales;
  }
  return invalid_input("the {} scale is {}, expected a finite number above 0", ternary_layout_name(view.layout), scale);
}

template <class Block>
bool all_zero(const uint8_t* block) {
  uint8_t codes[Block::kValues], bytes[Block::kBytes];
  std::memset(codes, 1, sizeof codes);
  Block::encode(codes, bytes);
  return std::memcmp(block, bytes, size_t(Block::kScaleOffset)) == 0;
}

template <class Block>
uint16_t scale_bits(const uint8_t* block) {
  return uint16_t(block[Block::kScaleOffset] | block[Block::kScaleOffset + 1] << 8);
}

template <class Block>
Result<TernaryScales> block_scales(const TernaryView& view) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  const int64_t blocks_per_row = view.n_cols / Block::kValues, n_blocks = view.n_rows * blocks_per_row;
  TernaryScales scales;
  bool found = false, grouped = false;
  uint16_t common = 0;
  for (int64_t i = 0; i < n_blocks; ++i) {
    const uint8_t* block = bytes + i * Block::kBytes;
    const uint16_t bits = scale_bits<Block>(block);
    if (found && bits == common) continue;
    const float scale = f16_to_f32(bits);
    const bool usable = std::isfinite(scale) && scale > 0.0f;
    if (!usable && scale != 0.0f) {
      return invalid_input("row {}, block {}: the {} scale is {}, expected a finite number of 0 or more",
                           i / blocks_per_row, i % blocks_per_row, ternary_layout_name(view.layout), scale);
    }
    if (all_zero<Block>(block)) continue;
    if (!usable) {
      return invalid_input("row {}, block {}: the {} scale is 0 though not all of its values are", i / blocks_per_row,
                           i % blocks_per_row, ternary_layout_name(view.layout));
    }
    grouped |= found;
    if (!found) {
      found = true;
      common = bits;
      scales.tensor = scale;
    }
  }
  if (!grouped) return scales;
  scales.group_cols = Block::kValues;
  scales.groups.resize(size_t(n_blocks));
  for (int64_t i = 0; i < n_blocks; ++i) {
    const uint8_t* block = bytes + i * Block::kBytes;
    scales.groups[size_t(i)] = all_zero<Block>(block) ? scales.tensor : f16_to_f32(scale_bits<Block>(block));
  }
  return scales;
}

}  // namespace

Result<TernaryScales> ternary_scales(const TernaryView& view) {
  BN_RETURN_IF_ERROR(check_ternary_view(view));
  switch (view.layout) {
    case TernaryLayout::kI2S:
    case TernaryLayout::kI2SArm64: return i2s_scales(view);
    case TernaryLayout::kTQ1_0: return block_scales<TQ1Block>(view);
    case TernaryLayout::kTQ2_0: return block_scales<TQ2Block>(view);
    case TernaryLayout::kHfPacked: break;
  }
  return invalid_argument("{} weights keep their scale in a tensor of its own", ternary_layout_name(view.layout));
}

}  // namespace bitnet
