#include "format/packed_ternary.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bitnet {
namespace {

std::vector<uint8_t> codes_of_density(int64_t n, double density, uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<uint8_t> codes(static_cast<size_t>(n), uint8_t{1});
  for (size_t i = 0; i < codes.size(); ++i) {
    if (rng.uniform(i) < density) codes[i] = uint8_t(rng.bits(i) >> 7 & 2);
  }
  return codes;
}

struct Sample {
  std::vector<uint8_t> codes;
  std::vector<std::byte> bytes;
};
Sample sample(double density, const PackedTernaryOptions& options = {}) {
  Sample out{codes_of_density(128 * 500, density, 3), {}};
  TernaryScales scales;
  scales.tensor = 0.1f;
  auto bytes = write_packed_ternary(128, 500, out.codes, scales, options);
  EXPECT_TRUE(bytes) << bytes.error().message;
  if (bytes) out.bytes = *std::move(bytes);
  return out;
}

TEST(PackedTernary, TakesTheSmallestPackingAndReadsItBack) {
  struct Case {
    double density;
    TernaryLayout layout;
  };
  for (const Case& c :
       {Case{0.66, TernaryLayout::kBase3}, {0.3, TernaryLayout::kHybrid}, {0.01, TernaryLayout::kSparse}}) {
    const Sample s = sample(c.density);
    const auto read = read_packed_ternary(s.bytes, 128, 500);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->layout, c.layout) << c.density;
    EXPECT_EQ(read->codes, s.codes);
    EXPECT_EQ(read->scales.tensor, 0.1f);
    EXPECT_EQ(read->n_repaired, 0);
    EXPECT_EQ(packed_ternary_header(s.bytes)->n_cols, 500);
  }
}

TEST(PackedTernary, GroupedScalesAreKept) {
  const auto codes = codes_of_density(4 * 64, 0.6, 1);
  TernaryScales scales;
  scales.group_cols = 32;
  for (int i = 0; i < 8; ++i) scales.groups.push_back(0.1f * float(i + 1));
  const auto bytes = write_packed_ternary(4, 64, codes, scales);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(read_packed_ternary(*bytes, 4, 64)->scales.groups, scales.groups);
  scales.groups.pop_back();
  EXPECT_FALSE(write_packed_ternary(4, 64, codes, scales));
}

// Whatever single byte is damaged, the matrix comes back as it was.
TEST(PackedTernary, AnyByteMayBeDamaged) {
  PackedTernaryOptions options;
  options.chunk_bits = 9;
  options.chunks_a_parity = 8;
  const Sample s = sample(0.66, options);
  const CounterRng rng(9);
  for (uint64_t i = 0; i < 400; ++i) {
    auto bytes = s.bytes;
    const size_t at = i < 200 ? size_t(i) : size_t(rng.bits(i) % bytes.size());  // headers, tables, then anywhere
    bytes[at] ^= std::byte(rng.bits(1000 + i) % 255 + 1);
    const auto read = read_packed_ternary(bytes, 128, 500);
    ASSERT_TRUE(read) << "byte " << at << ": " << read.error().message;
    EXPECT_EQ(read->codes, s.codes);
    EXPECT_LE(read->n_repaired, 1);
  }
}

TEST(PackedTernary, ALostSectorIsRestoredTwoOfOneParityAreNot) {
  PackedTernaryOptions options;
  options.chunk_bits = 9;
  options.chunks_a_parity = 8;  // 12,804 bytes: 26 chunks, 4 of parity
  const Sample s = sample(0.66, options);
  const size_t data = s.bytes.size() - 4 * 512 - 12804;
  auto bytes = s.bytes;
  for (size_t i = 0; i < 4 * 512; ++i) bytes[data + 512 + i] = std::byte{0};  // chunks 1 to 4: four parities
  const auto read = read_packed_ternary(bytes, 128, 500);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->codes, s.codes);
  EXPECT_EQ(read->n_repaired, 4);
  bytes[data + 5 * 512] ^= std::byte{1};  // chunk 5 shares its parity with chunk 1
  const auto lost = read_packed_ternary(bytes, 128, 500);
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, ErrorCode::kInvalidInput);
  EXPECT_NE(lost.error().message.find("chunk 1 of 26"), std::string::npos) << lost.error().message;

  options.chunks_a_parity = 0;
  Sample bare = sample(0.66, options);
  bare.bytes.back() ^= std::byte{1};
  EXPECT_NE(read_packed_ternary(bare.bytes, 128, 500).error().message.find("without parity"), std::string::npos);
}

TEST(PackedTernary, ForgedSizesAreRefused) {
  const Sample s = sample(0.3);
  const std::span<const std::byte> all = s.bytes;
  EXPECT_FALSE(read_packed_ternary(s.bytes, 500, 128));
  EXPECT_FALSE(read_packed_ternary(all.first(all.size() - 1), 128, 500));
  EXPECT_FALSE(read_packed_ternary(all.first(40), 128, 500));
  EXPECT_FALSE(read_packed_ternary({}, 128, 500));
  PackedTernaryOptions options;
  options.layout = TernaryLayout::kTQ2_0;
  EXPECT_FALSE(write_packed_ternary(1, 256, codes_of_density(256, 0.5, 1), {}, options));
  options.layout = TernaryLayout::kBase3;
  options.chunk_bits = 40;
  EXPECT_FALSE(write_packed_ternary(1, 256, codes_of_density(256, 0.5, 1), {}, options));
}

}  // namespace
}  // namespace bitnet
