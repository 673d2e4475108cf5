#include "base/half.h"
#include "quant/ternary.h"
#include "quant/ternary_blocks.h"
#include "quant/ternary_streams.h"
#include "quant/ternary_tiles.h"

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
  LutTile tile;
  int64_t count() const { return n_rows * n_cols; }
};

Status check_single_scale(const Source& source) {
  if (source.scales.groups.empty()) return ok();
  Error error = unsupported("{} has one scale a matrix; these weights have one for every {} columns of a row",
                            ternary_layout_name(source.layout), source.scales.group_cols);
  error.suggestion = "use TQ2_0 or TQ1_0, which keep a scale for every 256 columns";
  return error;
}

// Bits that no code uses would be lost, so codes are checked on their way: a chunk that lies in the cache anyway.
constexpr int64_t kChunkValues = 15 * 1024;  // whole bytes of 4 and of 5 neighbours
Status check_codes(const Source& source, int64_t begin, int64_t end) {
  uint8_t largest = 0;
  for (int64_t i = begin; i < end; ++i) largest = std::max(largest, source.codes[i]);
  if (largest <= 2) return ok();
  const uint8_t* bad = std::find_if(source.codes + begin, source.codes + end, [](uint8_t code) { return code > 2; });
  const int64_t at = bad - source.codes;
  return invalid_argument("row {}, column {}: {} is no ternary code", at / source.n_cols, at % source.n_cols, *bad);
}
Status check_all_codes(const Source& source) { return check_codes(source, 0, source.count()); }

template <class Block>
Status encode_flat(const Source& source, uint8_t* out) {
  constexpr int64_t kStep = kChunkValues / Block::kValues * Block::kValues;
  for (int64_t begin = 0; begin < source.count(); begin += kStep) {
    const int64_t end = std::min(begin + kStep, source.count());
    BN_RETURN_IF_ERROR(check_codes(source, begin, end));
    for (int64_t i = begin / Block::kValues; i < end / Block::kValues; ++i) {
      Block::encode(source.codes + i * Block::kValues, out + i * Block::kBytes);
    }
  }
  return ok();
}

template <class Block>
Status encode_i2s(const Source& source, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  const float scale = source.scales.tensor;
  if (!std::isnormal(scale) || scale < 0.0f) {
    return invalid_argument("a ternary scale of {}, expected a finite number above 0", scale);
  }
  BN_RETURN_IF_ERROR(encode_flat<Block>(source, out));
  std::memset(out + source.count() / 4, 0, 32);
  std::memcpy(out + source.count() / 4, &scale, sizeof scale);
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

Status check_no_zeros(const Source& source) {
  const auto* end = source.codes + source.count();
  const int64_t at = std::find(source.codes, end, uint8_t{1}) - source.codes;
  if (at == source.count()) return ok();
  return unsupported("row {}, column {} is 0: Q1_0 holds -d and +d only", at / source.n_cols, at % source.n_cols);
}

template <class Block>
Status encode_blocks(const Source& source, uint8_t* out) {
  const TernaryScales& scales = source.scales;
  const int64_t group_cols = scales.groups.empty() ? source.n_cols : scales.group_cols;
  const bool fits = group_cols > 0 && group_cols % Block::kValues == 0 && source.n_cols % group_cols == 0;
  if (!fits) {
    return unsupported("{} keeps one scale for {} columns; these weights have one for every {} of {} columns",
                       ternary_layout_name(source.layout), Block::kValues, group_cols, source.n_cols);
  }
  const int64_t groups_per_row = source.n_cols / group_cols;
  if (!scales.groups.empty() && int64_t(scales.groups.size()) != source.n_rows * groups_per_row) {
    return invalid_argument("{} group scales for {} rows of {} groups", scales.groups.size(), source.n_rows,
                            groups_per_row);
  }
  BN_RETURN_IF_ERROR(check_all_codes(source));
  if (source.layout == TernaryLayout::kQ1_0) BN_RETURN_IF_ERROR(check_no_zeros(source));
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

// Rows of [scale][blocks].
template <class Block, class Scale>
Status encode_rows(const Source& source, uint8_t* out) {
  const TernaryScales& scales = source.scales;
  if (!scales.groups.empty() && scales.group_cols != source.n_cols) {
    return unsupported("{} keeps one scale a row; these weights have one for every {} of {} columns",
                       ternary_layout_name(source.layout), scales.group_cols, source.n_cols);
  }
  if (!scales.groups.empty() && int64_t(scales.groups.size()) != source.n_rows) {
    return invalid_argument("{} scales for {} rows", scales.groups.size(), source.n_rows);
  }
  BN_RETURN_IF_ERROR(check_all_codes(source));
  const uint8_t* codes = source.codes;
  for (int64_t row = 0; row < source.n_rows; ++row) {
    const float scale = scales.groups.empty() ? scales.tensor : scales.groups[size_t(row)];
    Scale stored;
    if constexpr (sizeof(Scale) == 2) {
      BN_ASSIGN_OR_RETURN(stored, half_scale(source, row, scale));
    } else {
      if (!std::isnormal(scale) || scale < 0.0f) {
        return invalid_argument("row {}: a ternary scale of {}, expected a finite number above 0", row, scale);
      }
      stored = scale;
    }
    std::memcpy(out, &stored, sizeof stored);
    out += sizeof stored;
    for (int64_t i = 0; i < source.n_cols / Block::kValues; ++i, codes += Block::kValues, out += Block::kBytes) {
      Block::encode(codes, out);
    }
  }
  return ok();
}

template <int64_t kPerByte, void (*kPack)(const uint8_t*, int64_t, uint8_t*)>
Status encode_neighbours(const Source& source, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  for (int64_t begin = 0; begin < source.count(); begin += kChunkValues) {
    const int64_t end = std::min(begin + kChunkValues, source.count());
    BN_RETURN_IF_ERROR(check_codes(source, begin, end));
    const int64_t whole = (end - begin) / kPerByte, rest = (end - begin) % kPerByte;
    kPack(source.codes + begin, whole, out + begin / kPerByte);
    if (rest == 0) continue;
    uint8_t last[8] = {};
    std::memcpy(last, source.codes + end - rest, size_t(rest));
    kPack(last, 1, out + begin / kPerByte + whole);
  }
  return ok();
}

Status encode_hf(const Source& source, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  BN_RETURN_IF_ERROR(check_all_codes(source));
  std::memset(out, 0, size_t((source.n_rows + 3) / 4 * source.n_cols));
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
    case TernaryLayout::kBytes:
      BN_RETURN_IF_ERROR(check_single_scale(source));
      BN_RETURN_IF_ERROR(check_all_codes(source));
      std::memcpy(out, source.codes, size_t(source.count()));
      return ok();
    case TernaryLayout::kTwoBit: return encode_neighbours<4, pack_neighbours>(source, out);
    case TernaryLayout::kBase3: return encode_neighbours<5, pack_base3_neighbours>(source, out);
    case TernaryLayout::kQ1_0: return encode_blocks<Q1Block>(source, out);
    case TernaryLayout::kQ2_0: return encode_blocks<Q2Block<64>>(source, out);
    case TernaryLayout::kQ2_0G128: return encode_blocks<Q2Block<128>>(source, out);
    case TernaryLayout::kIQ1BN: return encode_rows<Iq1BnBlock, uint16_t>(source, out);
    case TernaryLayout::kIQ2BN: return encode_rows<Iq2BnBlock, float>(source, out);
    case TernaryLayout::kTL1:
    case TernaryLayout::kTL2:
      BN_RETURN_IF_ERROR(check_single_scale(source));
      BN_RETURN_IF_ERROR(check_all_codes(source));
      return encode_lut(source.layout, source.n_rows, source.n_cols, source.tile, source.codes, out);
    case TernaryLayout::kMsGpu:
      BN_RETURN_IF_ERROR(check_single_scale(source));
      BN_RETURN_IF_ERROR(check_all_codes(source));
      encode_ms_gpu(source.n_rows, source.n_cols, source.codes, out);
      return ok();
    case TernaryLayout::kRunLength:
    case TernaryLayout::kSparse:
    case TernaryLayout::kHybrid: break;
  }
  return invalid_argument("unknown ternary layout");
}

}  // namespace

Result<std::vector<std::byte>> encode_ternary(TernaryLayout layout, int64_t n_rows, int64_t n_cols,
                                              std::span<const uint8_t> codes, const TernaryScales& scales,
                                              LutTile tile) {
  const Source source{layout, n_rows, n_cols, codes.data(), scales, tile};
  if (has_fixed_size(layout)) {
    BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, ternary_bytes(layout, n_rows, n_cols, tile));
    std::vector<std::byte> out(size_bytes);
    BN_RETURN_IF_ERROR(encode_ternary(layout, n_rows, n_cols, codes, scales, out, tile));
    return out;
  }
  BN_RETURN_IF_ERROR(ternary_bytes(TernaryLayout::kBytes, n_rows, n_cols));
  if (codes.size() != uint64_t(n_rows) * uint64_t(n_cols)) {
    return invalid_argument("{} codes for a matrix of [{}, {}]", codes.size(), n_rows, n_cols);
  }
  BN_RETURN_IF_ERROR(check_single_scale(source));
  BN_RETURN_IF_ERROR(check_all_codes(source));
  return encode_stream(layout, codes);
}

Status encode_ternary(TernaryLayout layout, int64_t n_rows, int64_t n_cols, std::span<const uint8_t> codes,
                      const TernaryScales& scales, std::span<std::byte> out, LutTile tile) {
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, ternary_bytes(layout, n_rows, n_cols, tile));
  if (codes.size() != uint64_t(n_rows) * uint64_t(n_cols)) {
    return invalid_argument("{} codes for a matrix of [{}, {}]", codes.size(), n_rows, n_cols);
  }
  if (out.size() != size_bytes) return invalid_argument("{} bytes of output, expected {}", out.size(), size_bytes);
  const Source source{layout, n_rows, n_cols, codes.data(), scales, tile};
  return encode(source, reinterpret_cast<uint8_t*>(out.data()));
}

}  // namespace bitnet
