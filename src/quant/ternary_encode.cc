#include "base/half.h"
#include "quant/past_cache.h"
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
  const TernaryCodecs& codecs;
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

Status check_all_codes(const Source& source) {
  uint8_t largest = 0;
  for (int64_t i = 0; i < source.count(); ++i) largest = std::max(largest, source.codes[i]);
  if (largest <= 2) return ok();
  const uint8_t* bad = std::find_if(source.codes, source.codes + source.count(), [](uint8_t code) { return code > 2; });
  const int64_t at = bad - source.codes;
  return invalid_argument("row {}, column {}: {} is no ternary code", at / source.n_cols, at % source.n_cols, *bad);
}

// `n_values` codes in whole blocks. Bits that no code uses would be lost, so encoders look at each code.
template <class Block>
Status encode_blocks(const Source& source, const BlockCodec& codec, const uint8_t* codes, int64_t n_values,
                     PastCache& out) {
  const int64_t n_blocks = n_values / Block::kValues;
  for (int64_t at = 0, n; at < n_blocks; at += n) {
    n = std::min(out.blocks_at_once(Block::kBytes), n_blocks - at);
    if (!codec.encode(codes + at * Block::kValues, n, out.room())) return check_all_codes(source);
    out.add(n * Block::kBytes);
  }
  return ok();
}

template <class Block>
Status encode_i2s(const Source& source, const BlockCodec& codec, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  const float scale = source.scales.tensor;
  if (!std::isnormal(scale) || scale < 0.0f) {
    return invalid_argument("a ternary scale of {}, expected a finite number above 0", scale);
  }
  PastCache packed(source.codecs, out, source.count() / 4);
  BN_RETURN_IF_ERROR(encode_blocks<Block>(source, codec, source.codes, source.count(), packed));
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

Error zero_in_q1_0(const Source& source) {
  const int64_t at = std::find(source.codes, source.codes + source.count(), uint8_t{1}) - source.codes;
  return unsupported("row {}, column {} is 0: Q1_0 holds -d and +d only", at / source.n_cols, at % source.n_cols);
}

// Blocks with a scale each.
template <class Block>
Status encode_scaled(const Source& source, const BlockCodec& codec, uint8_t* out) {
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
  const int64_t n_blocks = source.count() / Block::kValues, group_blocks = group_cols / Block::kValues;
  PastCache packed(source.codecs, out, n_blocks * Block::kBytes);
  uint16_t bits = 0;
  float last = 0.0f;  // no scale is 0
  for (int64_t at = 0, n; at < n_blocks; at += n) {
    n = std::min(packed.blocks_at_once(Block::kBytes), n_blocks - at);
    uint8_t* block = packed.room();
    const uint8_t* const codes = source.codes + at * Block::kValues;
    if (!codec.encode(codes, n, block)) return check_all_codes(source);
    if (source.layout == TernaryLayout::kQ1_0 && std::memchr(codes, 1, size_t(n * Block::kValues)) != nullptr) {
      return zero_in_q1_0(source);
    }
    for (int64_t i = at; i < at + n; ++i, block += Block::kBytes) {
      const float scale = scales.groups.empty() ? scales.tensor : scales.groups[size_t(i / group_blocks)];
      if (scale != last) {
        BN_ASSIGN_OR_RETURN(bits, half_scale(source, i * Block::kValues / source.n_cols, scale));
        last = scale;
      }
      std::memcpy(block + Block::kScaleOffset, &bits, sizeof bits);
    }
    packed.add(n * Block::kBytes);
  }
  return ok();
}

// Rows of [scale][blocks].
template <class Block, class Scale>
Status encode_rows(const Source& source, const BlockCodec& codec, uint8_t* out) {
  const TernaryScales& scales = source.scales;
  if (!scales.groups.empty() && scales.group_cols != source.n_cols) {
    return unsupported("{} keeps one scale a row; these weights have one for every {} of {} columns",
                       ternary_layout_name(source.layout), scales.group_cols, source.n_cols);
  }
  if (!scales.groups.empty() && int64_t(scales.groups.size()) != source.n_rows) {
    return invalid_argument("{} scales for {} rows", scales.groups.size(), source.n_rows);
  }
  PastCache packed(source.codecs, out,
                   source.n_rows * (int64_t(sizeof(Scale)) + source.n_cols / Block::kValues * Block::kBytes));
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
    std::memcpy(packed.room(), &stored, sizeof stored);
    packed.add(sizeof stored);
    BN_RETURN_IF_ERROR(encode_blocks<Block>(source, codec, source.codes + row * source.n_cols, source.n_cols, packed));
  }
  return ok();
}

// Without scales, a byte a block; codes 0 fill the last byte.
template <class Block>
Status encode_flat(const Source& source, const BlockCodec& codec, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  const int64_t rest = source.count() % Block::kValues, whole = source.count() - rest;
  PastCache packed(source.codecs, out, source.count() / Block::kValues);
  BN_RETURN_IF_ERROR(encode_blocks<Block>(source, codec, source.codes, whole, packed));
  if (rest == 0) return ok();
  uint8_t last[Block::kValues] = {};
  std::memcpy(last, source.codes + whole, size_t(rest));
  return encode_blocks<Block>(source, codec, last, Block::kValues, packed);
}

Status encode_hf(const Source& source, uint8_t* out) {
  BN_RETURN_IF_ERROR(check_single_scale(source));
  const int64_t n_packed_rows = (source.n_rows + 3) / 4, n_cols = source.n_cols;
  PastCache packed(source.codecs, out, n_packed_rows * n_cols);
  for (int64_t row = 0; row < n_packed_rows; ++row) {
    for (int64_t col = 0, n; col < n_cols; col += n) {
      n = std::min(packed.blocks_at_once(1), n_cols - col);
      const uint8_t* quarters[4];
      for (int64_t k = 0; k < 4; ++k) {
        const int64_t from = k * n_packed_rows + row;
        quarters[k] = from < source.n_rows ? source.codes + from * n_cols + col : nullptr;
      }
      if (!source.codecs.encode_quarters(quarters, n, packed.room())) return check_all_codes(source);
      packed.add(n);
    }
  }
  return ok();
}

Status encode(const Source& source, uint8_t* out) {
  switch (source.layout) {
    case TernaryLayout::kI2S: return encode_i2s<I2SBlock>(source, source.codecs.i2_s, out);
    case TernaryLayout::kI2SArm64: return encode_i2s<I2SArm64Block>(source, source.codecs.i2_s_arm64, out);
    case TernaryLayout::kTQ1_0: return encode_scaled<TQ1Block>(source, source.codecs.tq1_0, out);
    case TernaryLayout::kTQ2_0: return encode_scaled<TQ2Block>(source, source.codecs.tq2_0, out);
    case TernaryLayout::kHfPacked: return encode_hf(source, out);
    case TernaryLayout::kBytes: return encode_flat<CodeByte>(source, source.codecs.bytes, out);
    case TernaryLayout::kTwoBit: return encode_flat<TwoBitByte>(source, source.codecs.two_bit, out);
    case TernaryLayout::kBase3: return encode_flat<Base3Byte>(source, source.codecs.base3, out);
    case TernaryLayout::kQ1_0: return encode_scaled<Q1Block>(source, source.codecs.q1_0, out);
    case TernaryLayout::kQ2_0: return encode_scaled<Q2Block<64>>(source, source.codecs.q2_0, out);
    case TernaryLayout::kQ2_0G128: return encode_scaled<Q2Block<128>>(source, source.codecs.q2_0_g128, out);
    case TernaryLayout::kIQ1BN: return encode_rows<Iq1BnBlock, uint16_t>(source, source.codecs.iq1_bn, out);
    case TernaryLayout::kIQ2BN: return encode_rows<Iq2BnBlock, float>(source, source.codecs.iq2_bn, out);
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
                                              std::span<const uint8_t> codes, const TernaryScales& scales, LutTile tile,
                                              const TernaryCodecs& codecs) {
  const Source source{layout, n_rows, n_cols, codes.data(), scales, codecs, tile};
  if (has_fixed_size(layout)) {
    BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, ternary_bytes(layout, n_rows, n_cols, tile));
    std::vector<std::byte> out(size_bytes);
    BN_RETURN_IF_ERROR(encode_ternary(layout, n_rows, n_cols, codes, scales, out, tile, codecs));
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
                      const TernaryScales& scales, std::span<std::byte> out, LutTile tile,
                      const TernaryCodecs& codecs) {
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, ternary_bytes(layout, n_rows, n_cols, tile));
  if (codes.size() != uint64_t(n_rows) * uint64_t(n_cols)) {
    return invalid_argument("{} codes for a matrix of [{}, {}]", codes.size(), n_rows, n_cols);
  }
  if (out.size() != size_bytes) return invalid_argument("{} bytes of output, expected {}", out.size(), size_bytes);
  const Source source{layout, n_rows, n_cols, codes.data(), scales, codecs, tile};
  return encode(source, reinterpret_cast<uint8_t*>(out.data()));
}

}  // namespace bitnet
