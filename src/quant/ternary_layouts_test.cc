#include "base/half.h"
#include "base/rng.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace bitnet {
namespace {

using Codes = std::vector<uint8_t>;

// Random blocks of every density, and those that break packings: all equal, alternating, single values, long runs.
Codes make_codes(int64_t n, uint64_t seed) {
  const CounterRng rng(seed);
  Codes codes(static_cast<size_t>(n), uint8_t{1});
  const uint64_t kind = seed % 12;
  for (size_t i = 0; i < codes.size(); ++i) {
    const uint64_t bits = rng.bits(i);
    switch (kind) {
      case 0: codes[i] = 1; break;
      case 1: codes[i] = 0; break;
      case 2: codes[i] = 2; break;
      case 3: codes[i] = uint8_t(i % 2 * 2); break;
      case 4: codes[i] = uint8_t(i % 3); break;
      case 5: codes[i] = i == codes.size() - 1 ? 2 : 1; break;
      case 6: codes[i] = uint8_t(i / 97 % 3); break;
      case 7: codes[i] = bits % 50 == 0 ? uint8_t(bits >> 32 & 2) : 1; break;
      case 8: codes[i] = bits % 5 == 0 ? uint8_t(bits >> 32 & 2) : 1; break;
      default: codes[i] = uint8_t(bits % 3); break;
    }
  }
  return codes;
}
// What a layout can hold of them: Q1_0 has no zeros.
Codes fitting(TernaryLayout layout, Codes codes) {
  if (layout != TernaryLayout::kQ1_0) return codes;
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = codes[i] == 1 ? uint8_t(i % 2 * 2) : codes[i];
  return codes;
}
TernaryScales one_scale(float scale) {
  TernaryScales scales;
  scales.tensor = scale;
  return scales;
}

// --- The published procedures, step by step as their authors wrote them in numpy, on whole arrays.

struct Array {
  std::vector<int64_t> shape;
  std::vector<int> values;

  Array reshape(std::vector<int64_t> to) const { return {std::move(to), values}; }
  Array transpose(const std::vector<size_t>& order) const {
    Array out{{}, std::vector<int>(values.size())};
    for (const size_t axis : order) out.shape.push_back(shape[axis]);
    std::vector<int64_t> index(shape.size(), 0);
    for (const int value : values) {
      int64_t to = 0;
      for (size_t k = 0; k < order.size(); ++k) to = to * out.shape[k] + index[order[k]];
      out.values[size_t(to)] = value;
      for (size_t axis = shape.size(); axis-- > 0;) {
        if (++index[axis] < shape[axis]) break;
        index[axis] = 0;
      }
    }
    return out;
  }
};

std::vector<std::byte> tl1_by_the_book(const Codes& codes, int64_t m, int64_t k, LutTile tile) {
  const int64_t bm = tile.inner_rows, by = 256 / bm, big_m = tile.rows, big_k = tile.cols;
  Array w{{m, k / 2}, {}};
  for (size_t i = 0; i < codes.size(); i += 2) w.values.push_back((codes[i] - 1) * 3 + (codes[i + 1] - 1) + 4);
  w = w.reshape({m / big_m, big_m, k / 2}).transpose({0, 2, 1});
  w = w.reshape({m / big_m, k / big_k, big_k / 2, big_m}).transpose({0, 1, 3, 2});
  w = w.reshape({m / big_m, k / big_k, big_m / bm, bm, big_k / 2}).transpose({0, 1, 2, 4, 3});
  w = w.reshape({m / big_m, k / big_k, big_m / bm, big_k / by, by / 2, bm}).transpose({0, 1, 2, 3, 5, 4});
  w = w.reshape({m / big_m, k / big_k, big_m / bm, big_k / by, bm / 16, 16, by / 2}).transpose({0, 1, 2, 3, 4, 6, 5});
  w = w.reshape({m / big_m, k / big_k, big_m / bm, big_k / by, bm / 16, by / 4, 2, 16})
          .transpose({0, 1, 2, 3, 4, 5, 7, 6});
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < w.values.size(); i += 2) bytes.push_back(std::byte(w.values[i] << 4 | w.values[i + 1]));
  return bytes;
}

// Bytes of two nibbles, rows of bm; eights 1 and 2 of each change places.
void append_nibbles(const Array& w, std::vector<std::byte>& bytes) {
  std::vector<std::byte> packed;
  for (size_t i = 0; i < w.values.size(); i += 2) packed.push_back(std::byte(w.values[i] << 4 | w.values[i + 1]));
  for (size_t row = 0; row < packed.size(); row += 32) {
    for (const size_t eight : {0, 2, 1, 3}) {
      bytes.insert(bytes.end(), packed.begin() + long(row + eight * 8), packed.begin() + long(row + eight * 8 + 8));
    }
  }
}

std::vector<std::byte> tl2_by_the_book(const Codes& codes, int64_t m, int64_t k, LutTile tile) {
  const int64_t bm = 32, big_m = tile.rows, three = k - k % tile.cols;
  std::vector<std::byte> bytes;
  const auto arrange = [&](Array w, int64_t columns, int64_t big_k, int64_t by, int64_t of) {
    w = w.reshape({m / big_m, big_m, columns / of}).transpose({0, 2, 1});
    w = w.reshape({m / big_m, columns / big_k, big_k / of, big_m}).transpose({0, 1, 3, 2});
    w = w.reshape({m / big_m, columns / big_k, big_m / bm, bm, big_k / of}).transpose({0, 1, 2, 4, 3});
    return w.reshape({m / big_m, columns / big_k, big_m / bm, big_k / by, by / of, bm}).transpose({0, 1, 2, 3, 5, 4});
  };
  Array magnitudes{{m, three / 3}, {}}, signs = magnitudes;
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t c = 0; c < three; c += 3) {
      const auto* at = codes.data() + row * k + c;
      const int value = (at[0] - 1) * 9 + (at[1] - 1) * 3 + at[2] - 1;
      magnitudes.values.push_back(std::abs(value));
      signs.values.push_back(value < 0);
    }
  }
  append_nibbles(arrange(magnitudes, three, tile.cols, 6, 3), bytes);
  // Four steps of two triples: [.., 8 triples, 32 rows] read as 16 rows of 16 bits.
  const Array s = arrange(signs, three, tile.cols, 24, 3).transpose({0, 1, 2, 3, 5, 4});
  for (size_t at = 0; at < s.values.size(); at += 256) {
    for (size_t j = 0; j < 16; ++j) {
      int word = 0;
      for (size_t i = 0; i < 16; ++i) word |= s.values[at + i * 16 + j] << (15 - i);
      bytes.push_back(std::byte(word & 255));
      bytes.push_back(std::byte(word >> 8));
    }
  }
  if (k > three) {
    Array pairs{{m, (k - three) / 2}, {}};
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t c = three; c < k; c += 2) {
        const auto* at = codes.data() + row * k + c;
        pairs.values.push_back((at[0] - 1) * 3 + (at[1] - 1) + 4);
      }
    }
    append_nibbles(arrange(pairs, k - three, 32, 4, 2), bytes);
  }
  bytes.resize(size_t((k - 256) * m / 3 * 5 / 8 + 256 * m / 2 * 4 / 8));
  return bytes;
}

std::vector<std::byte> ms_gpu_by_the_book(const Codes& codes, int64_t n, int64_t k) {
  std::vector<std::byte> bytes;
  for (int64_t tile_row = 0; tile_row < n / 16; ++tile_row) {
    for (int64_t tile_col = 0; tile_col < k / 32; ++tile_col) {
      for (int64_t i = 0; i < 16; ++i) {
        for (int64_t half = 0; half < 2; ++half) {
          uint32_t word = 0;  // 16 values in order, 2 bits each
          for (int64_t j = 16 * half; j < 16 * half + 16; ++j) {
            const int64_t thread = i * 2 + j / 16, row = thread / 16 * 8 + thread % 8;
            const int64_t col = j % 16 + 16 * (thread % 16 / 8);
            const auto value = uint32_t(codes[size_t((tile_row * 16 + row) * k + tile_col * 32 + col)] + 1);
            word |= value << (2 * (j % 16));
          }
          uint32_t interleaved = 0;
          for (int offset = 0; offset < 16; ++offset) {
            interleaved |= (word >> (2 * offset) & 3u) << (offset % 4 * 8 + offset / 4 * 2);
          }
          for (int b = 0; b < 4; ++b) bytes.push_back(std::byte(interleaved >> (8 * b) & 255u));
        }
      }
    }
  }
  return bytes;
}

TEST(TernaryLayouts, LookUpTablesEqualTheirPublishedProcedure) {
  struct Case {
    TernaryLayout layout;
    int64_t m, k;
    LutTile tile;
  };
  for (const Case& c : {Case{TernaryLayout::kTL1, 64, 128, {64, 64, 32}},
                        {TernaryLayout::kTL1, 128, 256, {64, 128, 64}},
                        {TernaryLayout::kTL1, 640, 128, {320, 64, 32}},
                        {TernaryLayout::kTL2, 64, 288, {32, 96, 32}},
                        {TernaryLayout::kTL2, 96, 352, {96, 96, 32}},
                        {TernaryLayout::kTL2, 64, 416, {64, 192, 32}}}) {
    const Codes codes = make_codes(c.m * c.k, 11);
    const auto bytes = encode_ternary(c.layout, c.m, c.k, codes, {}, c.tile);
    ASSERT_TRUE(bytes) << bytes.error().message;
    const bool tl1 = c.layout == TernaryLayout::kTL1;
    EXPECT_EQ(*bytes, (tl1 ? tl1_by_the_book : tl2_by_the_book)(codes, c.m, c.k, c.tile)) << c.m << 'x' << c.k;
  }
}

TEST(TernaryLayouts, LookUpTablesTakeThePublishedCut) {
  EXPECT_EQ(resolve_lut_tile(TernaryLayout::kTL1, 3200, 3200)->inner_rows, 64);
  EXPECT_EQ(resolve_lut_tile(TernaryLayout::kTL2, 1536, 1536)->cols, 192);
  EXPECT_EQ(*ternary_bytes(TernaryLayout::kTL2, 3200, 8640), uint64_t((8640 - 256) * 3200 / 3 * 5 / 8 + 64 * 3200));
  EXPECT_FALSE(resolve_lut_tile(TernaryLayout::kTL1, 48, 128));
  EXPECT_FALSE(resolve_lut_tile(TernaryLayout::kTL1, 64, 96, {64, 64, 32}));
  EXPECT_FALSE(resolve_lut_tile(TernaryLayout::kTL2, 64, 300));
  EXPECT_FALSE(resolve_lut_tile(TernaryLayout::kTL2, 64, 384, {64, 96, 64}));
}

TEST(TernaryLayouts, GpuTilesEqualTheirPublishedProcedure) {
  const Codes codes = make_codes(48 * 96, 11);
  EXPECT_EQ(*encode_ternary(TernaryLayout::kMsGpu, 48, 96, codes, {}), ms_gpu_by_the_book(codes, 48, 96));
}

// Where value i of the layouts with plain places lies, from docs/formats/ternary.md.
TEST(TernaryLayouts, ValuesLieWhereTheFormatSays) {
  struct Case {
    TernaryLayout layout;
    std::function<std::pair<int64_t, int>(int64_t)> place;  // of one row of 256
  };
  const Case cases[] = {
      {TernaryLayout::kTwoBit, [](int64_t i) { return std::pair<int64_t, int>(i / 4, i % 4 * 2); }},
      {TernaryLayout::kQ2_0,
       [](int64_t i) { return std::pair<int64_t, int>(i / 64 * 18 + 2 + i % 64 / 4, i % 4 * 2); }},
      {TernaryLayout::kQ2_0G128,
       [](int64_t i) { return std::pair<int64_t, int>(i / 128 * 34 + 2 + i % 128 / 4, i % 4 * 2); }},
      {TernaryLayout::kIQ2BN,
       [](int64_t i) { return std::pair<int64_t, int>(4 + i / 64 * 16 + i % 16, i % 64 / 16 * 2); }},
  };
  for (const Case& c : cases) {
    Codes zeros(256, 0);
    const auto base = *encode_ternary(c.layout, 1, 256, zeros, {});
    for (int64_t i = 0; i < 256; ++i) {
      Codes codes = zeros;
      codes[size_t(i)] = 2;
      auto bytes = *encode_ternary(c.layout, 1, 256, codes, {});
      const auto [byte, shift] = c.place(i);
      EXPECT_EQ(int(bytes[size_t(byte)]), 2 << shift) << ternary_layout_name(c.layout) << ' ' << i;
      bytes[size_t(byte)] = base[size_t(byte)];
      EXPECT_EQ(bytes, base);
    }
  }
}

TEST(TernaryLayouts, BaseThreeDigitsHaveTheirPlaces) {
  // IQ1_BN: ceil(3^j * 256 / 243) of value j of a byte, in a row that begins with a binary16.
  for (int64_t i = 0; i < 64; ++i) {
    Codes codes(64, 0);
    codes[size_t(i)] = 1;
    const auto bytes = *encode_ternary(TernaryLayout::kIQ1BN, 1, 64, codes, one_scale(1.0f));
    ASSERT_EQ(bytes.size(), 15u);
    const int64_t last = i % 16 == 15, byte = last ? 12 : i / 16 * 3 + i % 16 / 5;
    const int digit = int(last ? i / 16 : i % 16 % 5);
    constexpr int kByte[] = {2, 4, 10, 29, 86};
    for (int64_t b = 0; b < 13; ++b) EXPECT_EQ(int(bytes[size_t(2 + b)]), b == byte ? kByte[digit] : 0) << i;
  }
  const auto base3 = *encode_ternary(TernaryLayout::kBase3, 1, 7, Codes{1, 2, 0, 1, 2, 2, 1}, {});
  EXPECT_EQ(base3, (std::vector<std::byte>{std::byte(1 + 2 * 3 + 27 + 2 * 81), std::byte(2 + 3)}));
  EXPECT_EQ(*encode_ternary(TernaryLayout::kQ1_0, 1, 128, fitting(TernaryLayout::kQ1_0, Codes(128, 1)), {}), [] {
    std::vector<std::byte> bytes(18, std::byte{0xaa});
    bytes[0] = std::byte{0};
    bytes[1] = std::byte{0x3c};
    return bytes;
  }());
}

TEST(TernaryLayouts, StreamsAreWrittenAsTheFormatSays) {
  const auto bytes_of = [](std::initializer_list<int> values) {
    std::vector<std::byte> bytes;
    for (const int v : values) bytes.push_back(std::byte(v));
    return bytes;
  };
  const Codes codes = {1, 1, 1, 2, 2, 0, 1, 1, 1, 1, 1, 1};
  EXPECT_EQ(*encode_ternary(TernaryLayout::kRunLength, 3, 4, codes, {}), bytes_of({2 * 3 + 1, 3 + 2, 0, 5 * 3 + 1}));
  EXPECT_EQ(*encode_ternary(TernaryLayout::kSparse, 3, 4, codes, {}), bytes_of({3 * 2 + 1, 1, 0}));
  EXPECT_EQ(*encode_ternary(TernaryLayout::kRunLength, 1, 300, Codes(300, 1), {}),
            bytes_of({(299 * 3 + 1) % 128 + 128, (299 * 3 + 1) / 128}));
  // One block of zeros, one of digits.
  Codes two = make_codes(512, 9);
  std::fill_n(two.begin(), 256, uint8_t{1});
  const auto hybrid = *encode_ternary(TernaryLayout::kHybrid, 2, 256, two, {});
  EXPECT_EQ(hybrid.size(), 1u + 1 + 52);
  EXPECT_EQ(hybrid[0], std::byte{0});
  EXPECT_EQ(hybrid[1], std::byte{2});
}

// Blocks of 256 values through every layout. BITNET_NIGHTLY=1 takes ten million a layout.
TEST(TernaryLayouts, RandomAndAdversarialBlocksRoundTrip) {
  const bool nightly = std::getenv("BITNET_NIGHTLY") != nullptr;
  const int64_t rows = 64, cols = 1024, n_matrices = nightly ? 10'000'000 / 256 + 1 : 24;
  int64_t n_blocks = 0;  // of each layout
  Codes read;
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    n_blocks = 0;
    for (int64_t i = 0; i < n_matrices; ++i) {
      const Codes codes = fitting(info.layout, make_codes(rows * cols, uint64_t(i)));
      const auto bytes = encode_ternary(info.layout, rows, cols, codes, one_scale(0.5f));
      ASSERT_TRUE(bytes) << info.name << ": " << bytes.error().message;
      read.assign(codes.size(), 9);
      const Status status = decode_ternary({info.layout, rows, cols, *bytes}, 0, rows, read.data());
      ASSERT_TRUE(status) << info.name << ": " << status.error().message;
      ASSERT_EQ(read, codes) << info.name << " matrix " << i;
      n_blocks += rows * cols / 256;
    }
  }
  RecordProperty("blocks", std::to_string(n_blocks));
  EXPECT_GE(n_blocks, nightly ? 10'000'000 : 6'000);
}

TEST(TernaryLayouts, OddShapesAndPartsOfRowsRoundTrip) {
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    int n_shapes = 0;
    for (const int64_t rows : {1, 2, 3, 5, 16, 33, 64, 160}) {
      for (const int64_t cols : {1, 2, 3, 4, 5, 7, 31, 63, 64, 128, 192, 255, 256, 288, 320, 384, 544}) {
        if (has_fixed_size(info.layout) && !ternary_bytes(info.layout, rows, cols)) continue;
        ++n_shapes;
        const Codes codes = fitting(info.layout, make_codes(rows * cols, uint64_t(rows * 31 + cols)));
        const auto bytes = encode_ternary(info.layout, rows, cols, codes, one_scale(0.25f));
        ASSERT_TRUE(bytes) << info.name << ' ' << rows << 'x' << cols << ": " << bytes.error().message;
        const auto expected = ternary_bytes(info.layout, rows, cols);
        EXPECT_TRUE(!expected || bytes->size() == *expected) << info.name << ' ' << rows << 'x' << cols;
        const TernaryView view{info.layout, rows, cols, *bytes};
        Codes read(codes.size(), 9);
        for (int64_t r = 0; r < rows; ++r) ASSERT_TRUE(decode_ternary(view, r, 1, read.data() + r * cols));
        ASSERT_EQ(read, codes) << info.name << ' ' << rows << 'x' << cols;
        // A part in the middle touches nothing around it.
        Codes guarded(size_t(2 * cols + 2), 9);
        const int64_t first = rows / 2, n = std::min<int64_t>(2, rows - first);
        ASSERT_TRUE(decode_ternary(view, first, n, guarded.data() + 1));
        EXPECT_EQ(guarded.front(), 9);
        EXPECT_EQ(guarded[size_t(n * cols + 1)], 9) << info.name << ' ' << rows << 'x' << cols;
      }
    }
    EXPECT_GT(n_shapes, 1) << info.name;
  }
}

TEST(TernaryLayouts, EveryPairConvertsExactly) {
  const int64_t rows = 64, cols = 768;
  for (const TernaryLayoutInfo& from : ternary_layouts()) {
    for (const TernaryLayoutInfo& to : ternary_layouts()) {
      const bool binary = from.layout == TernaryLayout::kQ1_0 || to.layout == TernaryLayout::kQ1_0;
      const Codes codes =
          binary ? fitting(TernaryLayout::kQ1_0, make_codes(rows * cols, 10)) : make_codes(rows * cols, 10);
      const TernaryScales scale = one_scale(0.375f);
      const auto packed = encode_ternary(from.layout, rows, cols, codes, scale);
      ASSERT_TRUE(packed) << from.name << ": " << packed.error().message;
      const auto converted = convert_ternary({from.layout, rows, cols, *packed}, &scale, to.layout);
      ASSERT_TRUE(converted) << from.name << " to " << to.name << ": " << converted.error().message;
      EXPECT_EQ(converted->scales.tensor, 0.375f);
      EXPECT_EQ(converted->bytes, *encode_ternary(to.layout, rows, cols, codes, scale)) << from.name << ' ' << to.name;
    }
  }
}

TEST(TernaryLayouts, ConversionsThatWouldLoseSomethingSayWhat) {
  const int64_t rows = 32, cols = 512;
  const Codes codes = make_codes(rows * cols, 9);
  TernaryScales grouped;
  grouped.group_cols = 256;
  for (int64_t i = 0; i < rows * 2; ++i) grouped.groups.push_back(i % 2 ? 0.5f : 0.25f);
  const auto tq2 = *encode_ternary(TernaryLayout::kTQ2_0, rows, cols, codes, grouped);
  const TernaryView view{TernaryLayout::kTQ2_0, rows, cols, tq2};
  for (const TernaryLayoutInfo& to : ternary_layouts()) {
    const auto converted = convert_ternary(view, nullptr, to.layout);
    const bool holds = to.scales == ScaleKind::kGroupF16 && to.layout != TernaryLayout::kQ1_0;
    EXPECT_EQ(bool(converted), holds) << to.name;
    if (!converted) {
      EXPECT_EQ(converted.error().code, ErrorCode::kUnsupported) << to.name;
      continue;
    }
    EXPECT_EQ(ternary_scales({to.layout, rows, cols, converted->bytes})->group_cols, to.group_cols) << to.name;
  }
  // 0.1 is no binary16.
  const auto i2s = *encode_ternary(TernaryLayout::kI2S, rows, cols, codes, one_scale(0.1f));
  const TernaryView exact{TernaryLayout::kI2S, rows, cols, i2s};
  for (const TernaryLayoutInfo& to : ternary_layouts()) {
    const auto converted = convert_ternary(exact, nullptr, to.layout);
    const bool sixteen = to.scales == ScaleKind::kGroupF16 || to.scales == ScaleKind::kRowF16;
    EXPECT_EQ(bool(converted), !sixteen) << to.name;
    if (sixteen && to.layout != TernaryLayout::kQ1_0) {
      EXPECT_NE(converted.error().message.find("0.1"), std::string::npos) << converted.error().message;
    }
  }
  EXPECT_NE(convert_ternary(exact, nullptr, TernaryLayout::kQ1_0).error().message.find("is 0"), std::string::npos);
}

TEST(TernaryLayouts, RowScalesCollapseWhereTheyAgree) {
  for (const TernaryLayout layout : {TernaryLayout::kIQ1BN, TernaryLayout::kIQ2BN}) {
    Codes codes = make_codes(4 * 128, 9);
    std::fill_n(codes.begin() + 128, 128, uint8_t{1});
    TernaryScales scales;
    scales.group_cols = 128;
    scales.groups = {0.5f, 8.0f, 0.5f, 0.5f};
    auto bytes = *encode_ternary(layout, 4, 128, codes, scales);
    EXPECT_EQ(ternary_scales({layout, 4, 128, bytes})->tensor, 0.5f);
    EXPECT_TRUE(ternary_scales({layout, 4, 128, bytes})->groups.empty()) << "the other row is all zeros";
    scales.groups[3] = 2.0f;
    bytes = *encode_ternary(layout, 4, 128, codes, scales);
    EXPECT_EQ(ternary_scales({layout, 4, 128, bytes})->groups, (std::vector<float>{0.5f, 0.5f, 0.5f, 2.0f}));
    std::memset(bytes.data() + 2 * (bytes.size() / 4), 0xff, 4);
    const auto broken = ternary_scales({layout, 4, 128, bytes});
    ASSERT_FALSE(broken);
    EXPECT_NE(broken.error().message.find("row 2"), std::string::npos) << broken.error().message;
    scales.group_cols = 64;
    scales.groups.assign(8, 1.0f);
    EXPECT_FALSE(encode_ternary(layout, 4, 128, codes, scales));
  }
}

// Any byte may be damaged: what is read is either refused or is what an encoder would make of it.
TEST(TernaryLayouts, DamageIsRefusedOrReadAsWhatItSays) {
  const int64_t rows = 32, cols = 256;
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    const Codes codes = fitting(info.layout, make_codes(rows * cols, 9));
    const auto good = *encode_ternary(info.layout, rows, cols, codes, one_scale(1.0f));
    const CounterRng rng(5);
    int64_t n_refused = 0;
    for (uint64_t i = 0; i < 300; ++i) {
      auto bytes = good;
      const size_t at = size_t(rng.bits(2 * i) % bytes.size());
      bytes[at] ^= std::byte(rng.bits(2 * i + 1) % 255 + 1);
      Codes read(codes.size());
      const TernaryView view{info.layout, rows, cols, bytes};
      if (!decode_ternary(view, 0, rows, read.data())) {
        ++n_refused;
        continue;
      }
      TernaryScales scales = one_scale(1.0f);
      if (info.scales != ScaleKind::kApart) {
        const auto stored = ternary_scales(view);
        if (!stored) {
          ++n_refused;
          continue;
        }
        scales = *stored;
      }
      const auto again = encode_ternary(info.layout, rows, cols, read, scales);
      ASSERT_TRUE(again) << info.name << ": " << again.error().message;
      Codes reread(codes.size());
      ASSERT_TRUE(decode_ternary({info.layout, rows, cols, *again}, 0, rows, reread.data()));
      EXPECT_EQ(reread, read);
    }
    EXPECT_GT(n_refused, 0) << info.name;
  }
}

TEST(TernaryLayouts, StreamsThatNoEncoderMakesAreRefused) {
  const auto accepted = [](TernaryLayout layout, std::initializer_list<int> values, int64_t n) {
    std::vector<std::byte> bytes;
    for (const int v : values) bytes.push_back(std::byte(v));
    Codes codes(static_cast<size_t>(n));
    return bool(decode_ternary({layout, 1, n, bytes}, 0, 1, codes.data()));
  };
  EXPECT_TRUE(accepted(TernaryLayout::kRunLength, {3 * 3 + 1}, 4));
  EXPECT_FALSE(accepted(TernaryLayout::kRunLength, {4 * 3 + 1}, 4)) << "longer than the matrix";
  EXPECT_FALSE(accepted(TernaryLayout::kRunLength, {2 * 3 + 1}, 4)) << "shorter";
  EXPECT_FALSE(accepted(TernaryLayout::kRunLength, {1, 2 * 3 + 1}, 4)) << "two runs of one code";
  EXPECT_FALSE(accepted(TernaryLayout::kRunLength, {3 * 3 + 1 + 128, 0}, 4)) << "a number in a longer form";
  EXPECT_FALSE(accepted(TernaryLayout::kRunLength, {3 * 3 + 1, 0}, 4)) << "bytes behind the end";
  EXPECT_TRUE(accepted(TernaryLayout::kSparse, {}, 4));
  EXPECT_FALSE(accepted(TernaryLayout::kSparse, {4 * 2}, 4));
  EXPECT_TRUE(accepted(TernaryLayout::kHybrid, {0}, 4));
  EXPECT_FALSE(accepted(TernaryLayout::kHybrid, {5}, 4)) << "no such form";
  EXPECT_FALSE(accepted(TernaryLayout::kHybrid, {1, 0x55}, 4)) << "zeros have a smaller form";
  EXPECT_TRUE(accepted(TernaryLayout::kHybrid, {1, 0x25}, 4));
  EXPECT_FALSE(accepted(TernaryLayout::kHybrid, {}, 4));
}

TEST(TernaryLayouts, NamesFlagsAndTableAgree) {
  int i = 0;
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    EXPECT_EQ(int(info.layout), i++);
    EXPECT_EQ(parse_ternary_layout(info.flag), info.layout);
    if (!has_fixed_size(info.layout)) continue;
    const double bits = 8.0 * double(*ternary_bytes(info.layout, 3200, 3840)) / (3200.0 * 3840.0);
    EXPECT_NEAR(bits, info.bits_a_weight, 0.03) << info.name;
  }
  EXPECT_EQ(i, kTernaryLayouts);
  EXPECT_FALSE(parse_ternary_layout("q9"));
}

}  // namespace
}  // namespace bitnet
