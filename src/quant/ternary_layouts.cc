#include "base/checked.h"
#include "quant/ternary.h"
#include "quant/ternary_blocks.h"

#include <array>

namespace bitnet {
namespace {

using enum TernaryLayout;
using enum ScaleKind;

constexpr std::array<TernaryLayoutInfo, kTernaryLayouts> kLayouts = {{
    {kI2S, "I2_S", "i2_s", kTensorF32, 0, 2.0},
    {kI2SArm64, "I2_S (ARM layout)", "i2_s_arm64", kTensorF32, 0, 2.0},
    {kTQ1_0, "TQ1_0", "tq1_0", kGroupF16, 256, 1.6875},
    {kTQ2_0, "TQ2_0", "tq2_0", kGroupF16, 256, 2.0625},
    {kHfPacked, "packed uint8", "hf", kApart, 0, 2.0},
    {kBytes, "bytes", "bytes", kApart, 0, 8.0},
    {kTwoBit, "2-bit", "two_bit", kApart, 0, 2.0},
    {kBase3, "base-3", "base3", kApart, 0, 1.6},
    {kRunLength, "run-length", "run_length", kApart, 0, 0.0},
    {kSparse, "sparse", "sparse", kApart, 0, 0.0},
    {kHybrid, "hybrid", "hybrid", kApart, 0, 0.0},
    {kTL1, "TL1", "tl1", kApart, 0, 2.0},
    {kTL2, "TL2", "tl2", kApart, 0, 5.0 / 3.0},
    {kQ1_0, "Q1_0", "q1_0", kGroupF16, 128, 1.125},
    {kQ2_0, "Q2_0", "q2_0", kGroupF16, 64, 2.25},
    {kQ2_0G128, "Q2_0 (groups of 128)", "q2_0_g128", kGroupF16, 128, 2.125},
    {kIQ1BN, "IQ1_BN", "iq1_bn", kRowF16, 0, 1.625},
    {kIQ2BN, "IQ2_BN", "iq2_bn", kRowF32, 0, 2.0},
    {kMsGpu, "Microsoft int2", "ms_gpu", kApart, 0, 2.0},
}};

constexpr uint64_t kI2sTail_bytes = 32;  // a float32 scale and 28 zero bytes

struct Shape2 {
  const char* name;
  int64_t n_rows, n_cols, count;

  Status blocks(int64_t n, int64_t block_values, const char* of) const {
    if (n % block_values == 0) return ok();
    return invalid_input("{} stores blocks of {} values, which {} of [{}, {}] with {} values does not fill evenly",
                         name, block_values, of, n_rows, n_cols, n);
  }
  template <class Block>
  Result<uint64_t> in_rows(int64_t row_scale_bytes = 0) const {
    BN_RETURN_IF_ERROR(blocks(n_cols, Block::kValues, "a row"));
    const auto row = checked_add(uint64_t(n_cols / Block::kValues * Block::kBytes), uint64_t(row_scale_bytes));
    const auto bytes = checked_mul(*row, uint64_t(n_rows));
    if (!bytes) return invalid_input("{}: [{}, {}] needs more bytes than a file can have", name, n_rows, n_cols);
    return *bytes;
  }
};

}  // namespace

const TernaryLayoutInfo& ternary_layout_info(TernaryLayout layout) { return kLayouts[size_t(layout)]; }
std::span<const TernaryLayoutInfo> ternary_layouts() { return kLayouts; }
const char* ternary_layout_name(TernaryLayout layout) { return ternary_layout_info(layout).name.data(); }

std::optional<TernaryLayout> parse_ternary_layout(std::string_view flag) {
  for (const TernaryLayoutInfo& info : kLayouts) {
    if (info.flag == flag) return info.layout;
  }
  return std::nullopt;
}

bool has_fixed_size(TernaryLayout layout) { return ternary_layout_info(layout).bits_a_weight > 0.0; }

Result<uint64_t> ternary_bytes(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile) {
  const char* name = ternary_layout_name(layout);
  if (n_rows <= 0 || n_cols <= 0) {
    return invalid_input("{}: a matrix of [{}, {}] values is empty", name, n_rows, n_cols);
  }
  int64_t count;
  if (__builtin_mul_overflow(n_rows, n_cols, &count) || count > INT64_MAX - 8) {
    return invalid_input("{}: [{}, {}] has more values than 63 bits can count", name, n_rows, n_cols);
  }
  const Shape2 shape{name, n_rows, n_cols, count};
  switch (layout) {
    case kI2S:
    case kI2SArm64:
      BN_RETURN_IF_ERROR(shape.blocks(count, layout == kI2S ? 128 : 64, "a matrix"));
      return uint64_t(count) / 4 + kI2sTail_bytes;
    case kTQ1_0: return shape.in_rows<ternary::TQ1Block>();
    case kTQ2_0: return shape.in_rows<ternary::TQ2Block>();
    case kQ1_0: return shape.in_rows<ternary::Q1Block>();
    case kQ2_0: return shape.in_rows<ternary::Q2Block<64>>();
    case kQ2_0G128: return shape.in_rows<ternary::Q2Block<128>>();
    case kIQ1BN: return shape.in_rows<ternary::Iq1BnBlock>(2);
    case kIQ2BN: return shape.in_rows<ternary::Iq2BnBlock>(4);
    case kHfPacked: {
      const auto bytes = checked_mul(uint64_t(n_rows) / 4 + (n_rows % 4 != 0), uint64_t(n_cols));
      if (!bytes) return invalid_input("{}: [{}, {}] needs more bytes than a file can have", name, n_rows, n_cols);
      return *bytes;
    }
    case kBytes: return uint64_t(count);
    case kTwoBit: return uint64_t(count + 3) / 4;
    case kBase3: return uint64_t(count + 4) / 5;
    case kRunLength:
    case kSparse:
    case kHybrid: return invalid_argument("the size of {} weights depends on their values", name);
    case kTL1:
    case kTL2: {
      BN_RETURN_IF_ERROR(resolve_lut_tile(layout, n_rows, n_cols, tile));
      if (layout == kTL1) return uint64_t(count) / 4;
      // Triples in 5 bits, the columns that fill no tile as pairs in 4; padded as if those were 256.
      return uint64_t((n_cols - 256) * n_rows / 3 * 5 / 8 + 256 * n_rows / 2 * 4 / 8);
    }
    case kMsGpu:
      BN_RETURN_IF_ERROR(shape.blocks(n_rows, 16, "a column"));
      BN_RETURN_IF_ERROR(shape.blocks(n_cols, 32, "a row"));
      return uint64_t(count) / 4;
  }
  return invalid_argument("unknown ternary layout");
}

Status check_ternary_view(const TernaryView& view) {
  if (!has_fixed_size(view.layout))
    return ternary_bytes(kBytes, view.n_rows, view.n_cols)
               ? ok()
               : Status(invalid_input("{}: a matrix of [{}, {}] values is empty or too large",
                                      ternary_layout_name(view.layout), view.n_rows, view.n_cols));
  BN_ASSIGN_OR_RETURN(const uint64_t expected, ternary_bytes(view.layout, view.n_rows, view.n_cols, view.tile));
  if (view.bytes.size() == expected) return ok();
  return invalid_input("{} [{}, {}] takes {} bytes, found {}", ternary_layout_name(view.layout), view.n_rows,
                       view.n_cols, expected, view.bytes.size());
}

Result<PackedTernary> convert_ternary(const TernaryView& source, const TernaryScales* apart, TernaryLayout to,
                                      LutTile tile, const TernaryCodecs& codecs) {
  BN_RETURN_IF_ERROR(check_ternary_view(source));
  PackedTernary out;
  if (ternary_layout_info(source.layout).scales != kApart) {
    BN_ASSIGN_OR_RETURN(out.scales, ternary_scales(source));
  } else if (apart != nullptr) {
    out.scales = *apart;
  }
  std::vector<uint8_t> codes(size_t(source.n_rows * source.n_cols));
  BN_RETURN_IF_ERROR(decode_ternary(source, 0, source.n_rows, codes.data(), codecs));
  BN_ASSIGN_OR_RETURN(out.bytes, encode_ternary(to, source.n_rows, source.n_cols, codes, out.scales, tile, codecs));
  if (ternary_layout_info(to).scales == kApart) return out;
  BN_ASSIGN_OR_RETURN(const TernaryScales kept, ternary_scales({to, source.n_rows, source.n_cols, out.bytes, tile}));
  if (Status same = same_scales(codes, source.n_rows, source.n_cols, out.scales, kept); !same) {
    Error error =
        unsupported("{} cannot hold these weights exactly: {}", ternary_layout_name(to), same.error().message);
    error.suggestion = "I2_S and IQ2_BN keep float32 scales";
    return error;
  }
  return out;
}

}  // namespace bitnet
