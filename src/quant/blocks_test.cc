#include "quant/blocks.h"

#include "base/half.h"
#include "base/rng.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace bitnet {
namespace {

// The numbers of the first tests come from a separate numpy program that follows ggml's definitions (gguf-py), fed with
// the same bytes.
std::vector<std::byte> stream(size_t n, uint32_t state) {
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) {
    state = state * 1664525u + 1013904223u;
    b = std::byte(state >> 24);
  }
  return bytes;
}

uint64_t fnv(std::span<const std::byte> bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte b : bytes) hash = (hash ^ uint64_t(b)) * 0x100000001b3u;
  return hash;
}

constexpr uint16_t kScales[] = {0x239c, 0x2c00, 0x1555};

// Gives block i a sane binary16 at `offset`.
void put_scales(std::vector<std::byte>& bytes, size_t block_bytes, size_t offset, size_t first) {
  for (size_t i = 0; i < bytes.size() / block_bytes; ++i) {
    std::memcpy(bytes.data() + i * block_bytes + offset, &kScales[(i + first) % 3], 2);
  }
}

struct BlockGolden {
  DType type;
  uint32_t seed;
  std::vector<size_t> scale_offsets;
  uint64_t hash;
  float first, at_17, last;
};

TEST(Dequantize, EqualsGgml) {
  const BlockGolden goldens[] = {
      {DType::kQ4_0, 1, {0}, 0x31149f70e3312188u, -0x1.aa2p-4f, 0x1.6d4p-5f, -0x1.aa9p-8f},
      {DType::kQ8_0, 2, {0}, 0x64fe82e4da3ff6f7u, 0x1.6d4p-1f, 0x1.971ap+0f, -0x1.1544p-4f},
      {DType::kQ4_K, 3, {0, 2}, 0xe5f154fd9b7a74f8u, 0x1.2366p+2f, 0x1.057p-1f, 0x1.bde3p-3f},
      {DType::kQ6_K, 4, {208}, 0x5707e27580be28e7u, -0x1.78aap+2f, 0x1.5ba74p+3f, 0x1.ffep-8f},
  };
  for (const BlockGolden& golden : goldens) {
    const DTypeInfo& info = dtype_info(golden.type);
    auto bytes = stream(size_t(3 * info.block_bytes), golden.seed);
    for (size_t k = 0; k < golden.scale_offsets.size(); ++k) {
      put_scales(bytes, size_t(info.block_bytes), golden.scale_offsets[k], k);
    }
    std::vector<float> values(size_t(3 * info.block_size));
    ASSERT_TRUE(dequantize(golden.type, bytes, int64_t(values.size()), values.data()));
    EXPECT_EQ(values.front(), golden.first) << info.name;
    EXPECT_EQ(values[17], golden.at_17) << info.name;
    EXPECT_EQ(values.back(), golden.last) << info.name;
    EXPECT_EQ(fnv(std::as_bytes(std::span(values))), golden.hash) << info.name;
  }
}

TEST(Ternary, BlocksEqualGgml) {
  const auto random = stream(768, 5);
  std::vector<uint8_t> codes(768);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(random[i]) % 3;
  TernaryScales scales;
  scales.group_cols = 256;
  for (const uint16_t half : kScales) scales.groups.push_back(f16_to_f32(half));
  const auto tq1 = encode_ternary(TernaryLayout::kTQ1_0, 3, 256, codes, scales);
  const auto tq2 = encode_ternary(TernaryLayout::kTQ2_0, 3, 256, codes, scales);
  ASSERT_TRUE(tq1 && tq2);
  EXPECT_EQ(fnv(*tq1), 0x0c6ab3e488e365ccu);
  EXPECT_EQ(fnv(*tq2), 0x05014220d4f4a1ddu);
  std::vector<float> values(768);
  ASSERT_TRUE(dequantize(DType::kTQ1_0, *tq1, 768, values.data()));
  EXPECT_EQ(fnv(std::as_bytes(std::span(values))), 0x2f462a0ff892052eu);
  ASSERT_TRUE(dequantize(DType::kTQ2_0, *tq2, 768, values.data()));
  EXPECT_EQ(fnv(std::as_bytes(std::span(values))), 0x2f462a0ff892052eu);
}

TEST(Quantize, Q8EqualsGgml) {
  const auto random = stream(96, 6);
  std::vector<float> x(96);
  for (size_t i = 0; i < 96; ++i) {
    x[i] = (float(uint8_t(random[i])) - 128.0f) / 37.0f;
    if (i / 32 == 1) x[i] *= 1000.0f;
    if (i / 32 == 2) x[i] = 0.0f;
  }
  const auto bytes = quantize(DType::kQ8_0, x, 3, 32);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(fnv(*bytes), 0x43bb5b0b7dbcfccdu);
}

TEST(Dequantize, WidensPlainTypes) {
  const auto check = [](DType type, const auto& stored, std::initializer_list<float> expected) {
    std::vector<float> values(expected.size());
    ASSERT_TRUE(dequantize(type, std::as_bytes(std::span(stored)), int64_t(values.size()), values.data()));
    EXPECT_EQ(values, std::vector<float>(expected));
  };
  check(DType::kF32, std::vector<float>{1.5f, -0x1p-149f}, {1.5f, -0x1p-149f});
  check(DType::kF16, std::vector<uint16_t>{0x3c01, 0x8001}, {1.0f + 0x1p-10f, -0x1p-24f});
  check(DType::kBF16, std::vector<uint16_t>{0x3f81, 0xc000}, {1.0f + 0x1p-7f, -2.0f});
  check(DType::kF64, std::vector<double>{1.0 + 0x1p-24, -3.0}, {1.0f, -3.0f});
  check(DType::kI8, std::vector<int8_t>{-128, 127}, {-128.0f, 127.0f});
}

TEST(Dequantize, RefusesWhatItCannotRead) {
  float values[256];
  const std::vector<std::byte> bytes(512);
  const std::span<const std::byte> all = bytes;
  EXPECT_EQ(dequantize(DType::kI2_S, all.first(32), 128, values).error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(dequantize(DType::kI32, all.first(128), 32, values));
  EXPECT_FALSE(dequantize(DType::kQ8_0, all.first(34), 31, values));
  EXPECT_FALSE(dequantize(DType::kQ8_0, all.first(33), 32, values));
  EXPECT_FALSE(dequantize(DType::kF32, all.first(12), 4, values));
  std::vector<std::byte> threes(66, std::byte{0xff});
  EXPECT_FALSE(dequantize(DType::kTQ2_0, threes, 256, values));
}

TEST(Quantize, PlainTypesRoundOnce) {
  const std::vector<float> x = {1.0f + 0x1p-11f, 1.0f + 0x1p-8f, -65504.0f, 0x1p-24f};
  std::vector<float> back(4);
  ASSERT_TRUE(dequantize(DType::kF16, *quantize(DType::kF16, x, 2, 2), 4, back.data()));
  EXPECT_EQ(back, (std::vector<float>{1.0f, 1.0f + 0x1p-8f, -65504.0f, 0x1p-24f}));
  ASSERT_TRUE(dequantize(DType::kBF16, *quantize(DType::kBF16, x, 2, 2), 4, back.data()));
  EXPECT_EQ(back, (std::vector<float>{1.0f, 1.0f, -65536.0f, 0x1p-24f}));
  ASSERT_TRUE(dequantize(DType::kF32, *quantize(DType::kF32, x, 2, 2), 4, back.data()));
  EXPECT_EQ(back, x);
}

TEST(Quantize, Q6StaysWithinHalfAStepAndBeatsPlainRounding) {
  const CounterRng rng(3);
  std::vector<float> x(256 * 40), back(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(rng.normal(i)) * (i / 256 % 2 ? 0.02f : 300.0f);
  const auto bytes = quantize(DType::kQ6_K, x, 8, 1280);
  ASSERT_TRUE(bytes);
  ASSERT_TRUE(dequantize(DType::kQ6_K, *bytes, int64_t(x.size()), back.data()));
  double error = 0, plain_error = 0, power = 0;
  for (size_t group = 0; group < x.size() / 16; ++group) {
    float largest = 0;
    for (size_t i = group * 16; i < group * 16 + 16; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float step = largest / 31.0f;
    for (size_t i = group * 16; i < group * 16 + 16; ++i) {
      EXPECT_LE(std::fabs(back[i] - x[i]), 1.5f * step) << i;
      const double scale = 1.0 / (double(largest) * double(largest));
      const double plain = double(std::nearbyint(x[i] / step) * step) - double(x[i]);
      error += (double(back[i]) - double(x[i])) * (double(back[i]) - double(x[i])) * scale;
      plain_error += plain * plain * scale;
      power += double(x[i]) * double(x[i]) * scale;
    }
  }
  // 6 bits of 16 normals: about 0.02 % of the power is lost. Scales as floats would do little better.
  EXPECT_LT(error, 0.0004 * power);
  EXPECT_LT(error, 1.1 * plain_error);
}

TEST(Quantize, Q6KeepsExactGridsZerosAndExtremes) {
  std::vector<float> x(256), back(256);
  const auto round_trip = [&] {
    const auto bytes = quantize(DType::kQ6_K, x, 1, 256);
    ASSERT_TRUE(bytes);
    EXPECT_TRUE(dequantize(DType::kQ6_K, *bytes, 256, back.data()));
  };
  round_trip();
  EXPECT_EQ(back, x);
  for (size_t i = 0; i < 256; ++i) x[i] = float(int(i % 64) - 32) * 0.25f;
  x[16] = x[32] = x[48] = -8.0f;  // each group's scale is then 0.25 exactly
  for (size_t g = 0; g < 16; ++g) x[g * 16] = -8.0f;
  round_trip();
  EXPECT_EQ(back, x);
  for (size_t i = 0; i < 256; ++i) x[i] = i % 2 ? 2000000.0f : 1e-30f;
  round_trip();
  EXPECT_NEAR(back[1], 2000000.0f, 70000.0f);
  for (size_t i = 0; i < 256; ++i) x[i] = 1e-30f;
  round_trip();
  for (const float v : back) EXPECT_EQ(v, 0.0f);
}

TEST(Quantize, RefusesWhatATypeCannotHold) {
  std::vector<float> x(256, 1.0f);
  EXPECT_EQ(quantize(DType::kI2_S, x, 1, 256).error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(quantize(DType::kQ6_K, std::span(x).first(128), 1, 128));
  EXPECT_FALSE(quantize(DType::kQ8_0, x, 16, 16));
  EXPECT_FALSE(quantize(DType::kF32, x, 1, 255));
  x[70] = 70000.0f;
  const auto overflow = quantize(DType::kF16, x, 2, 128);
  ASSERT_FALSE(overflow);
  EXPECT_NE(overflow.error().message.find("row 0, column 70: 70000"), std::string::npos) << overflow.error().message;
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 1e8f}) {
    x[70] = bad;
    EXPECT_FALSE(quantize(DType::kQ8_0, x, 1, 256)) << bad;
    EXPECT_FALSE(quantize(DType::kQ6_K, x, 1, 256)) << bad;
  }
}

// The levels of each type, from ggml's definitions: what a block can hold exactly comes back exactly.
TEST(SmallBlocks, HoldTheirOwnLevelsExactly) {
  struct Case {
    DType type;
    int64_t group;
    int low, high;
    float min;
  };
  for (const Case& c : {Case{DType::kQ4_0, 32, -8, 7, 0.0f},
                        {DType::kQ5_0, 32, -16, 15, 0.0f},
                        {DType::kQ4_1, 32, 0, 15, 0.75f},
                        {DType::kQ5_1, 32, 0, 31, -3.0f},
                        {DType::kQ3_K, 16, -4, 3, 0.0f},
                        {DType::kQ2_K, 16, 0, 3, -15.0f},
                        {DType::kQ4_K, 32, 0, 15, -63.0f},
                        {DType::kQ5_K, 32, 0, 31, -63.0f}}) {
    const CounterRng rng(uint64_t(c.type));
    std::vector<float> x(512), back(512);
    const int n_levels = c.high - c.low + 1;
    for (size_t i = 0; i < x.size(); ++i) {
      // Each group has its lowest and highest level, so that its scale is the one meant.
      const size_t in_group = i % size_t(c.group);
      const int q = in_group == 0 ? c.low : in_group == 1 ? c.high : c.low + int(rng.bits(i) % uint64_t(n_levels));
      const float step = c.type == DType::kQ2_K   ? 15.0f
                         : c.type == DType::kQ3_K ? -32.0f
                         : c.min == -63.0f        ? 63.0f
                                                  : 0.5f;
      x[i] = step * float(q) + c.min;
    }
    const auto bytes = quantize(c.type, x, 2, 256);
    ASSERT_TRUE(bytes) << bytes.error().message;
    ASSERT_TRUE(dequantize(c.type, *bytes, 512, back.data()));
    for (size_t i = 0; i < x.size(); ++i) EXPECT_FLOAT_EQ(back[i], x[i]) << dtype_info(c.type).name << ' ' << i;
  }
}

// Every bit of a block in its place: decoding what a single changed byte means, from the formats' own descriptions.
TEST(SmallBlocks, BitsLieWhereGgmlPutsThem) {
  const auto decode = [](DType type, std::vector<uint8_t> bytes) {
    std::vector<float> out(size_t(dtype_info(type).block_size));
    EXPECT_TRUE(dequantize(type, std::as_bytes(std::span(bytes)), int64_t(out.size()), out.data()));
    return out;
  };
  const auto zeros = [](DType type) { return std::vector<uint8_t>(size_t(dtype_info(type).block_bytes), 0); };
  auto q5 = zeros(DType::kQ5_0);
  q5[1] = 0x3c;      // d = 1
  q5[2 + 2] = 0x02;  // fifth bit of value 17
  q5[6 + 1] = 0x73;  // low nibble: value 1; high: value 17
  EXPECT_EQ(decode(DType::kQ5_0, q5)[1], 3.0f - 16.0f);
  EXPECT_EQ(decode(DType::kQ5_0, q5)[17], 7.0f);
  auto q3 = zeros(DType::kQ3_K);
  q3[109] = 0x3c;
  // Group 9 (values 144-159): low bits in the high nibble of byte 1, high bits at bits 5-4 of byte 8 + 1.
  q3[96 + 1] = 0x50;
  q3[96 + 9] = 0x20;     // 5 | 2 << 4 = 37: a scale of 5
  q3[3] = 1 << 4;        // third bit of half 1, j 0: value 128 + 3
  q3[32 + 32 + 19] = 2;  // half 1, j 0, l 19: value 147
  const auto v3 = decode(DType::kQ3_K, q3);
  EXPECT_EQ(v3[147], 5.0f * (2 - 4));
  EXPECT_EQ(v3[131], -32.0f * 0.0f);
  EXPECT_EQ(v3[132], -32.0f * -4.0f);
  auto q2 = zeros(DType::kQ2_K);
  q2[81] = q2[83] = 0x3c;
  q2[7] = 0x25;          // group 7 (values 112-127): scale 5, minimum 2
  q2[16 + 20] = 3 << 6;  // half 0, j 3, l 20: value 116
  EXPECT_EQ(decode(DType::kQ2_K, q2)[116], 5.0f * 3 - 2.0f);
  EXPECT_EQ(decode(DType::kQ2_K, q2)[117], -2.0f);
  auto q5k = zeros(DType::kQ5_K);
  q5k[1] = q5k[3] = 0x3c;
  q5k[4 + 2] = 4 | 1 << 6;   // scale 2 is 4; the high bits of scale 6 are 1
  q5k[4 + 10] = 3 | 2 << 4;  // the low bits of scale 6 are 3, of minimum 6 are 2
  q5k[16 + 5] = 1 << 6;      // fifth bit of group 6, value 5
  q5k[48 + 3 * 32 + 5] = 9;  // its low bits
  EXPECT_EQ(decode(DType::kQ5_K, q5k)[6 * 32 + 5], 19.0f * 25 - 2);
  EXPECT_EQ(decode(DType::kQ4_1,
                   [&] {
                     auto q41 = zeros(DType::kQ4_1);
                     q41[1] = q41[3] = 0x3c;
                     q41[4 + 15] = 0xb0;
                     return q41;
                   }())[31],
            12.0f);
}

TEST(SmallBlocks, ErrorsFallWithTheBitsAndBeatPlainRounding) {
  const CounterRng rng(7);
  std::vector<float> x(256 * 64), back(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(rng.normal(i)) * 0.03f;
  const auto relative_error = [&](DType type) {
    EXPECT_TRUE(dequantize(type, *quantize(type, x, 64, 256), int64_t(x.size()), back.data()));
    double error = 0, power = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      error += (double(back[i]) - double(x[i])) * (double(back[i]) - double(x[i]));
      power += double(x[i]) * double(x[i]);
    }
    return error / power;
  };
  // Rounding 32 normals to 15 steps of max / 7 leaves 1.1 % of their power; 2, 3, 4, 5 bits with groups at most:
  EXPECT_LT(relative_error(DType::kQ2_K), 0.105);
  EXPECT_LT(relative_error(DType::kQ3_K), 0.030);
  EXPECT_LT(relative_error(DType::kQ4_0), 0.0090);
  EXPECT_LT(relative_error(DType::kQ4_1), 0.0070);
  EXPECT_LT(relative_error(DType::kQ4_K), 0.0070);
  EXPECT_LT(relative_error(DType::kQ5_0), 0.0023);
  EXPECT_LT(relative_error(DType::kQ5_1), 0.0018);
  EXPECT_LT(relative_error(DType::kQ5_K), 0.0018);
  std::fill(x.begin(), x.end(), 0.0f);
  for (const DType type : {DType::kQ2_K, DType::kQ3_K, DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ5_0,
                           DType::kQ5_1, DType::kQ5_K}) {
    ASSERT_TRUE(dequantize(type, *quantize(type, x, 64, 256), int64_t(x.size()), back.data()));
    EXPECT_EQ(back, x) << dtype_info(type).name;
  }
}

TEST(Dequantize, TernaryTypesOfOtherEngines) {
  std::vector<float> out(128);
  const std::vector<uint8_t> codes = [] {
    std::vector<uint8_t> c(128);
    for (size_t i = 0; i < c.size(); ++i) c[i] = uint8_t(i * 7 % 3);
    return c;
  }();
  TernaryScales rows;
  rows.group_cols = 64;
  rows.groups = {0.5f, 2.0f};
  struct Case {
    DType type;
    TernaryLayout layout;
  };
  for (const Case& c : {Case{DType::kIQ1_BN, TernaryLayout::kIQ1BN},
                        {DType::kIQ2_BN, TernaryLayout::kIQ2BN},
                        {DType::kQ2_0, TernaryLayout::kQ2_0}}) {
    const auto bytes = *encode_ternary(c.layout, 2, 64, codes, rows);
    EXPECT_EQ(bytes.size(), *tensor_bytes(c.type, {2, 64}));
    ASSERT_TRUE(dequantize_rows(c.type, bytes, 2, 64, out.data()));
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], (i < 64 ? 0.5f : 2.0f) * float(int(codes[i]) - 1));
  }
  EXPECT_FALSE(dequantize(DType::kIQ1_BN, *encode_ternary(TernaryLayout::kIQ1BN, 2, 64, codes, rows), 128, out.data()));
  std::vector<uint8_t> signs(128);
  for (size_t i = 0; i < signs.size(); ++i) signs[i] = i % 5 < 2 ? 0 : 2;
  ASSERT_TRUE(dequantize(DType::kQ1_0, *encode_ternary(TernaryLayout::kQ1_0, 1, 128, signs, {}), 128, out.data()));
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], i % 5 < 2 ? -1.0f : 1.0f);
}

}  // namespace
}  // namespace bitnet
