#include "quant/ternary.h"

#include "base/half.h"
#include "base/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace bitnet {
namespace {

constexpr TernaryLayout kLayouts[] = {TernaryLayout::kI2S, TernaryLayout::kI2SArm64, TernaryLayout::kTQ1_0,
                                      TernaryLayout::kTQ2_0, TernaryLayout::kHfPacked};

std::vector<uint8_t> random_codes(int64_t n, uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(rng.bits(i) % 3);
  return codes;
}

std::vector<std::byte> encode(TernaryLayout layout, int64_t rows, int64_t cols, const std::vector<uint8_t>& codes,
                              float alpha) {
  TernaryScales scales;
  scales.tensor = alpha;
  auto bytes = encode_ternary(layout, rows, cols, codes, scales);
  EXPECT_TRUE(bytes) << bytes.error().message;
  return bytes ? *bytes : std::vector<std::byte>();
}

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int v : values) bytes.push_back(std::byte(v));
  return bytes;
}

// Where value i of a layout lies, written independently of the encoder from docs/formats/ternary.md.
struct Place {
  int64_t byte;
  int shift;
};
Place place_of(TernaryLayout layout, int64_t i, int64_t rows, int64_t cols) {
  switch (layout) {
    case TernaryLayout::kI2S: return {i / 128 * 32 + i % 32, int(6 - 2 * (i % 128 / 32))};
    case TernaryLayout::kI2SArm64: return {i / 64 * 16 + i % 16, int(6 - 2 * (i % 64 / 16))};
    case TernaryLayout::kTQ2_0: return {i / 256 * 66 + i % 256 / 128 * 32 + i % 32, int(2 * (i % 128 / 32))};
    default: {
      const int64_t packed_rows = (rows + 3) / 4, row = i / cols;
      return {row % packed_rows * cols + i % cols, int(row / packed_rows * 2)};
    }
  }
}

TEST(Ternary, TransformersDocstringVector) {
  const auto packed = bytes_of({0b10100001, 0b00011000, 0b10010000, 0b00001010});
  const TernaryView view{TernaryLayout::kHfPacked, 8, 2, packed};
  std::array<uint8_t, 16> codes{};
  ASSERT_TRUE(decode_ternary(view, 0, 8, codes.data()));
  const std::array<int, 16> expected = {0, -1, -1, 1, -1, 1, -1, 1, 1, 0, 0, -1, 1, -1, 1, -1};
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(int(codes[i]) - 1, expected[i]) << i;
}

TEST(Ternary, EveryValueLiesWhereTheFormatSays) {
  const int64_t rows = 6, cols = 256;
  for (const TernaryLayout layout : kLayouts) {
    if (layout == TernaryLayout::kTQ1_0) continue;
    for (const int64_t i : {0, 1, 15, 16, 31, 32, 63, 64, 95, 96, 127, 128, 255, 256, 700, 1535}) {
      std::vector<uint8_t> codes(size_t(rows * cols), 0);
      codes[size_t(i)] = 2;
      const auto bytes = encode(layout, rows, cols, codes, 1.0f);
      const Place place = place_of(layout, i, rows, cols);
      EXPECT_EQ(int(bytes[size_t(place.byte)]), 2 << place.shift) << ternary_layout_name(layout) << " value " << i;
    }
  }
}

TEST(Ternary, Tq1HoldsFiveDigitsAByteFirstMostSignificant) {
  std::vector<uint8_t> codes(256, 0);
  const auto byte_for = [&](int64_t value) {
    codes.assign(256, 0);
    codes[size_t(value)] = 1;
    const auto bytes = encode(TernaryLayout::kTQ1_0, 1, 256, codes, 1.0f);
    std::pair<int, int> found{-1, 0};
    for (int p = 0; p < 52; ++p) {
      if (bytes[size_t(p)] != std::byte{0}) found = {p, int(bytes[size_t(p)])};
    }
    return found;
  };
  // ceil(3^k * 256 / 243)
  EXPECT_EQ(byte_for(0), std::make_pair(0, 86));
  EXPECT_EQ(byte_for(31 + 32), std::make_pair(31, 29));
  EXPECT_EQ(byte_for(5 + 4 * 32), std::make_pair(5, 2));
  EXPECT_EQ(byte_for(160), std::make_pair(32, 86));
  EXPECT_EQ(byte_for(160 + 15 + 2 * 16), std::make_pair(47, 10));
  EXPECT_EQ(byte_for(240), std::make_pair(48, 86));
  EXPECT_EQ(byte_for(243 + 3 * 4), std::make_pair(51, 4));
}

TEST(Ternary, RoundTripsEveryLayoutOnAwkwardShapes) {
  struct Case {
    int64_t rows, cols;
  };
  for (const TernaryLayout layout : kLayouts) {
    for (const Case c : {Case{1, 256},
                         {7, 256},
                         {5, 512},
                         {2, 8640},
                         {4, 32},
                         {130, 64},
                         {5, 128},
                         {3, 1},
                         {1, 3},
                         {6, 5},
                         {64, 320},
                         {9, 7},
                         {128, 1},
                         {2, 192}}) {
      if (!ternary_bytes(layout, c.rows, c.cols)) continue;
      const auto codes = random_codes(c.rows * c.cols, uint64_t(c.rows * 1000 + c.cols));
      const auto bytes = encode(layout, c.rows, c.cols, codes, 0.125f);
      EXPECT_EQ(bytes.size(), *ternary_bytes(layout, c.rows, c.cols));
      const TernaryView view{layout, c.rows, c.cols, bytes};
      // Rows one at a time meet every alignment of a row inside its blocks; then all at once.
      std::vector<uint8_t> read(codes.size(), 9);
      for (int64_t r = 0; r < c.rows; ++r) ASSERT_TRUE(decode_ternary(view, r, 1, read.data() + r * c.cols));
      EXPECT_EQ(read, codes) << ternary_layout_name(layout) << ' ' << c.rows << 'x' << c.cols;
      read.assign(codes.size(), 9);
      ASSERT_TRUE(decode_ternary(view, 0, c.rows, read.data()));
      EXPECT_EQ(read, codes) << ternary_layout_name(layout) << ' ' << c.rows << 'x' << c.cols;
      if (layout == TernaryLayout::kHfPacked) continue;
      const auto scales = ternary_scales(view);
      ASSERT_TRUE(scales);
      EXPECT_EQ(scales->tensor, 0.125f);
      EXPECT_TRUE(scales->groups.empty());
    }
  }
}

TEST(Ternary, ShapesThatDoNotFitAreRefusedWithTheReason) {
  EXPECT_EQ(*ternary_bytes(TernaryLayout::kI2S, 2, 8640), uint64_t(2 * 8640 / 4 + 32));
  EXPECT_NE(ternary_bytes(TernaryLayout::kI2S, 1, 8640).error().message.find("128"), std::string::npos);
  EXPECT_TRUE(ternary_bytes(TernaryLayout::kI2SArm64, 1, 8640));
  EXPECT_NE(ternary_bytes(TernaryLayout::kTQ1_0, 256, 320).error().message.find("256"), std::string::npos);
  EXPECT_EQ(*ternary_bytes(TernaryLayout::kHfPacked, 5, 3), 6u);
  for (const TernaryLayout layout : kLayouts) {
    EXPECT_FALSE(ternary_bytes(layout, int64_t(1) << 62, 256)) << ternary_layout_name(layout);
    EXPECT_FALSE(ternary_bytes(layout, 0, 256));
    EXPECT_FALSE(ternary_bytes(layout, 256, -1));
  }
}

TEST(Ternary, CodeThreeIsNamedByRowAndColumn) {
  const int64_t rows = 6, cols = 256;
  for (const TernaryLayout layout : kLayouts) {
    if (layout == TernaryLayout::kTQ1_0) continue;
    auto bytes = encode(layout, rows, cols, random_codes(rows * cols, 3), 1.0f);
    const Place place = place_of(layout, 4 * cols + 77, rows, cols);
    bytes[size_t(place.byte)] |= std::byte(3 << place.shift);
    const TernaryView view{layout, rows, cols, bytes};
    std::vector<uint8_t> codes(size_t(rows * cols));
    const Status status = decode_ternary(view, 0, rows, codes.data());
    ASSERT_FALSE(status) << ternary_layout_name(layout);
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidInput);
    EXPECT_NE(status.error().message.find("row 4, column 77"), std::string::npos) << status.error().message;
    EXPECT_TRUE(decode_ternary(view, 0, 4, codes.data())) << "rows before the damage are fine";
  }
}

TEST(Ternary, BaseThreeBytesThatNoEncoderMakesAreRefused) {
  auto bytes = encode(TernaryLayout::kTQ1_0, 2, 256, random_codes(512, 4), 1.0f);
  std::array<uint8_t, 512> codes{};
  const auto accepted = [&](size_t at) {
    int n = 0;
    const std::byte kept = bytes[at];
    for (int b = 0; b < 256; ++b) {
      bytes[at] = std::byte(b);
      const TernaryView view{TernaryLayout::kTQ1_0, 2, 256, bytes};
      if (!decode_ternary(view, 0, 2, codes.data())) continue;
      ++n;
      const auto again = encode_ternary(TernaryLayout::kTQ1_0, 2, 256, codes, {});
      EXPECT_EQ(int((*again)[at]), b);
    }
    bytes[at] = kept;
    return n;
  };
  EXPECT_EQ(accepted(0), 243);
  EXPECT_EQ(accepted(47), 243);
  EXPECT_EQ(accepted(48), 81);
  EXPECT_EQ(accepted(54 + 51), 81);
  bytes[54 + 35] = std::byte{1};  // 1 is no ceil(q * 256 / 243): q = 0 gives 0 and q = 1 gives 2
  const TernaryView view{TernaryLayout::kTQ1_0, 2, 256, bytes};
  const Status status = decode_ternary(view, 0, 2, codes.data());
  EXPECT_NE(status.error().message.find("row 1, column 163"), std::string::npos) << status.error().message;
}

TEST(Ternary, I2sScalesMustBeUsable) {
  auto bytes = encode(TernaryLayout::kI2S, 1, 128, random_codes(128, 5), 1.0f);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 0.0f, -1.0f, -0.0f,
                          std::numeric_limits<float>::denorm_min()}) {
    std::memcpy(bytes.data() + 32, &bad, 4);
    EXPECT_FALSE(ternary_scales({TernaryLayout::kI2S, 1, 128, bytes})) << bad;
  }
  auto zeros = encode(TernaryLayout::kI2S, 1, 128, std::vector<uint8_t>(128, 1), 1.0f);
  std::memset(zeros.data() + 32, 0, 4);
  EXPECT_TRUE(ternary_scales({TernaryLayout::kI2S, 1, 128, zeros}));
  for (size_t i = 36; i < 64; ++i) EXPECT_EQ(bytes[i], std::byte{0});
}

TEST(Ternary, WrongByteCountsAndRowRangesAreRefused) {
  const auto bytes = encode(TernaryLayout::kI2S, 2, 128, random_codes(256, 6), 1.0f);
  std::vector<uint8_t> codes(512);
  const std::span<const std::byte> all = bytes;
  EXPECT_FALSE(decode_ternary({TernaryLayout::kI2S, 2, 128, all.first(64)}, 0, 2, codes.data()));  // no tail
  EXPECT_FALSE(ternary_scales({TernaryLayout::kI2S, 2, 128, all.first(64)}));
  EXPECT_FALSE(decode_ternary({TernaryLayout::kI2S, 2, 128, all}, 1, 2, codes.data()));
  EXPECT_FALSE(decode_ternary({TernaryLayout::kI2S, 2, 128, all}, -1, 1, codes.data()));
  EXPECT_FALSE(ternary_scales({TernaryLayout::kHfPacked, 4, 96, all}));
}

class BlockScales : public testing::TestWithParam<TernaryLayout> {
 protected:
  // A [2, 512] matrix: four blocks. The last two bytes of each are its scale.
  void set_scale(size_t block, uint16_t bits) {
    const size_t size = bytes_.size() / 4;
    std::memcpy(bytes_.data() + (block + 1) * size - 2, &bits, 2);
  }
  std::vector<uint8_t> codes_ = random_codes(1024, 7);
  std::vector<std::byte> bytes_ = encode(GetParam(), 2, 512, codes_, 0.5f);
  TernaryView view() const { return {GetParam(), 2, 512, bytes_}; }
};

TEST_P(BlockScales, AgreeingBlocksCollapseAndZeroBlocksDoNotCount) {
  EXPECT_EQ(ternary_scales(view())->tensor, 0.5f);
  std::fill(codes_.begin() + 256, codes_.begin() + 512, uint8_t{1});
  bytes_ = encode(GetParam(), 2, 512, codes_, 0.5f);
  set_scale(1, 0);
  auto scales = ternary_scales(view());
  ASSERT_TRUE(scales);
  EXPECT_TRUE(scales->groups.empty());
  set_scale(1, f32_to_f16(3.0f));
  EXPECT_TRUE(ternary_scales(view())->groups.empty());
  set_scale(2, f32_to_f16(0.25f));
  scales = ternary_scales(view());
  ASSERT_TRUE(scales);
  EXPECT_EQ(scales->group_cols, 256);
  EXPECT_EQ(scales->groups, (std::vector<float>{0.5f, 0.5f, 0.25f, 0.5f}));
}

TEST_P(BlockScales, GroupedScalesRoundTrip) {
  TernaryScales scales;
  scales.group_cols = 256;
  scales.groups = {1.0f, 2.0f, 0.5f, 0x1p-20f};
  auto bytes = encode_ternary(GetParam(), 2, 512, codes_, scales);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(ternary_scales({GetParam(), 2, 512, *bytes})->groups, scales.groups);
  scales.group_cols = 512;
  scales.groups = {1.0f, 2.0f};
  bytes = encode_ternary(GetParam(), 2, 512, codes_, scales);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(ternary_scales({GetParam(), 2, 512, *bytes})->groups, (std::vector<float>{1.0f, 1.0f, 2.0f, 2.0f}));
  scales.group_cols = 128;
  scales.groups.assign(8, 1.0f);
  EXPECT_FALSE(encode_ternary(GetParam(), 2, 512, codes_, scales));
}

TEST_P(BlockScales, UnusableScalesAreRefused) {
  for (const uint16_t bad : {0x7c00, 0x7e00, 0xb800, 0x0000, 0xfc00}) {
    set_scale(2, bad);
    const auto scales = ternary_scales(view());
    ASSERT_FALSE(scales) << bad;
    EXPECT_NE(scales.error().message.find("row 1, block 0"), std::string::npos) << scales.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Ternary, BlockScales, testing::Values(TernaryLayout::kTQ1_0, TernaryLayout::kTQ2_0));

TEST(Ternary, EncodersRefuseWhatTheyCannotHold) {
  const auto codes = random_codes(512, 8);
  TernaryScales grouped;
  grouped.group_cols = 256;
  grouped.groups = {1.0f, 2.0f};
  for (const TernaryLayout layout : {TernaryLayout::kI2S, TernaryLayout::kI2SArm64, TernaryLayout::kHfPacked}) {
    const auto bytes = encode_ternary(layout, 2, 256, codes, grouped);
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().code, ErrorCode::kUnsupported);
    EXPECT_FALSE(bytes.error().suggestion.empty());
  }
  TernaryScales tiny;
  tiny.tensor = 1e-9f;
  EXPECT_FALSE(encode_ternary(TernaryLayout::kTQ2_0, 2, 256, codes, tiny));
  EXPECT_TRUE(encode_ternary(TernaryLayout::kI2S, 2, 256, codes, tiny));
  auto bad = codes;
  bad[300] = 3;
  EXPECT_NE(encode_ternary(TernaryLayout::kI2S, 2, 256, bad, {}).error().message.find("row 1, column 44"),
            std::string::npos);
  EXPECT_FALSE(encode_ternary(TernaryLayout::kI2S, 1, 256, codes, {}));
}

TEST(Ternary, AbsmeanFollowsTheFormula) {
  std::vector<float> weights;
  const CounterRng rng(9);
  for (uint64_t i = 0; i < 1003; ++i) weights.push_back(float(rng.normal(i) * 0.03));
  std::vector<uint8_t> codes(weights.size());
  const float alpha = absmean_ternarize(weights, codes.data());
  double sum = 0;
  for (const float w : weights) sum += std::fabs(double(w));
  const float scale = 1.0f / float(sum / double(weights.size()));
  EXPECT_EQ(alpha, 1.0f / scale);
  for (size_t i = 0; i < weights.size(); ++i) {
    const double rounded = std::nearbyint(double(weights[i] * scale));
    EXPECT_EQ(int(codes[i]) - 1, int(std::min(1.0, std::max(-1.0, rounded))));
  }
}

TEST(Ternary, AbsmeanRoundsHalvesToEvenAndGuardsZero) {
  // The mean is 1, so the scale is 1 and a half is a tie, which goes to 0.
  const std::vector<float> weights = {0.5f, -0.5f, 0.50001f, -0.50001f, 1.5f, -1.5f, 1.5f, 1.49998f};
  std::vector<uint8_t> codes(8);
  ASSERT_EQ(absmean_ternarize(weights, codes.data()), 1.0f);
  EXPECT_EQ(codes, (std::vector<uint8_t>{1, 1, 2, 0, 2, 0, 2, 2}));
  const std::vector<float> zeros(8, 0.0f);
  EXPECT_EQ(absmean_ternarize(zeros, codes.data()), 1.0f / (1.0f / 1e-5f));
  EXPECT_EQ(codes, std::vector<uint8_t>(8, 1));
}

TEST(Ternary, ExactTernaryTakesOneMagnitudeOnly) {
  std::vector<uint8_t> codes(4);
  float alpha = 0;
  EXPECT_TRUE(exact_ternary(std::vector<float>{0.0f, -0.3f, 0.3f, -0.0f}, codes.data(), &alpha));
  EXPECT_EQ(alpha, 0.3f);
  EXPECT_EQ(codes, (std::vector<uint8_t>{1, 0, 2, 1}));
  EXPECT_FALSE(exact_ternary(std::vector<float>{0.3f, std::nextafter(0.3f, 1.0f)}, codes.data(), &alpha));
  EXPECT_FALSE(exact_ternary(std::vector<float>{0.3f, std::nanf("")}, codes.data(), &alpha));
  EXPECT_FALSE(exact_ternary(std::vector<float>{std::numeric_limits<float>::infinity()}, codes.data(), &alpha));
  EXPECT_TRUE(exact_ternary(std::vector<float>(4, 0.0f), codes.data(), &alpha));
  EXPECT_EQ(alpha, 1.0f);
}

}  // namespace
}  // namespace bitnet
