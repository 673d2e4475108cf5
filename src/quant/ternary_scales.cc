#include "base/half.h"
#include "quant/ternary.h"
#include "quant/ternary_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

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
  std::memcpy(bytes, block, sizeof bytes);  // for its scale
  Block::encode(codes, bytes);
  return std::memcmp(block, bytes, sizeof bytes) == 0;
}
template <>
bool all_zero<Q1Block>(const uint8_t*) {
  return false;
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

// Rows of [scale][blocks].
template <class Block, class Scale>
Result<TernaryScales> row_scales(const TernaryView& view) {
  const int64_t n_blocks = view.n_cols / Block::kValues, row_bytes = int64_t(sizeof(Scale)) + n_blocks * Block::kBytes;
  TernaryScales scales;
  std::vector<float> rows(size_t(view.n_rows), 0.0f);  // 0: all of its values are
  bool found = false, grouped = false;
  for (int64_t r = 0; r < view.n_rows; ++r) {
    const auto* row = reinterpret_cast<const uint8_t*>(view.bytes.data()) + r * row_bytes;
    Scale stored;
    std::memcpy(&stored, row, sizeof stored);
    float scale;
    if constexpr (sizeof(Scale) == 2) {
      scale = f16_to_f32(stored);
    } else {
      scale = stored;
    }
    const bool usable = sizeof(Scale) == 2 ? std::isfinite(scale) && scale > 0.0f : usable_scale(scale);
    if (!usable && scale != 0.0f) {
      return invalid_input("row {}: the {} scale is {}, expected a finite number of 0 or more", r,
                           ternary_layout_name(view.layout), scale);
    }
    int64_t b = 0;
    while (b < n_blocks && all_zero<Block>(row + sizeof(Scale) + b * Block::kBytes)) ++b;
    if (b == n_blocks) continue;
    if (!usable) {
      return invalid_input("row {}: the {} scale is 0 though not all of its values are", r,
                           ternary_layout_name(view.layout));
    }
    rows[size_t(r)] = scale;
    grouped |= found && scale != scales.tensor;
    if (!found) scales.tensor = scale;
    found = true;
  }
  if (!grouped) return scales;
  scales.group_cols = view.n_cols;
  scales.groups = std::move(rows);
  for (float& scale : scales.groups) scale = scale == 0.0f ? scales.tensor : scale;
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
    case TernaryLayout::kQ1_0: return block_scales<Q1Block>(view);
    case TernaryLayout::kQ2_0: return block_scales<Q2Block<64>>(view);
    case TernaryLayout::kQ2_0G128: return block_scales<Q2Block<128>>(view);
    case TernaryLayout::kIQ1BN: return row_scales<Iq1BnBlock, uint16_t>(view);
    case TernaryLayout::kIQ2BN: return row_scales<Iq2BnBlock, float>(view);
    default: break;
  }
  return invalid_argument("{} weights keep their scale in a tensor of its own", ternary_layout_name(view.layout));
}

float ternary_scale_at(const TernaryScales& scales, int64_t n_cols, int64_t row, int64_t col) {
  if (scales.groups.empty()) return scales.tensor;
  return scales.groups[size_t(row * (n_cols / scales.group_cols) + col / scales.group_cols)];
}

Status same_scales(std::span<const uint8_t> codes, int64_t n_rows, int64_t n_cols, const TernaryScales& a,
                   const TernaryScales& b) {
  const int64_t group_a = a.groups.empty() ? n_cols : a.group_cols, group_b = b.groups.empty() ? n_cols : b.group_cols;
  const int64_t step = std::gcd(group_a, group_b);
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t col = 0; col < n_cols; col += step) {
      const float first = ternary_scale_at(a, n_cols, row, col), second = ternary_scale_at(b, n_cols, row, col);
      const auto* at = codes.data() + row * n_cols + col;
      if (first == second || std::all_of(at, at + step, [](uint8_t code) { return code == 1; })) continue;
      return invalid_input("row {}, column {} has the scale {}, which would become {}", row, col, first, second);
    }
  }
  return ok();
}

}  // namespace bitnet
