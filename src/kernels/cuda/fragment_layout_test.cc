#include "kernels/cuda/fragment_layout.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <vector>

namespace bitnet::cuda {
namespace {

TEST(FragmentLayout, PackedWordsHoldEachCodeWhereCodePlaceSays) {
  for (const int64_t n_rows : {1, 16, 37}) {
    for (const int64_t n_cols : {1, 100, 128, 300}) {
      const CounterRng rng(uint64_t(n_rows * n_cols));
      std::vector<uint8_t> codes(size_t(n_rows * n_cols));
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(rng.bits(i) % 3);
      const int64_t n_col_tiles = n_tiles(n_cols, kTileCols);
      std::vector<uint32_t> words(size_t(n_tiles(n_rows, kTileRows) * n_col_tiles * kTileWords));
      for (size_t i = 0; i < words.size(); ++i)
        words[i] = pack_word(codes.data(), n_rows, n_cols, n_col_tiles, int64_t(i));
      uint64_t want = 0, found = 0;
      for (int64_t row = 0; row < n_rows; ++row) {
        for (int64_t col = 0; col < n_cols; ++col) {
          const CodePlace place = code_place(row, col, n_col_tiles);
          const uint8_t code = codes[size_t(row * n_cols + col)];
          ASSERT_EQ(words[size_t(place.word)] >> place.shift & 3, code) << row << ", " << col;
          want += code;
        }
      }
      for (const uint32_t word : words) {
        for (int shift = 0; shift < 32; shift += 2) found += word >> shift & 3;
      }
      EXPECT_EQ(found, want);  // nothing beside the matrix
    }
  }
}

// The A fragment of mma.m16n8k32 for 8-bit types: register p of lane 4g + t holds row g + 8 (p & 1), columns 4t + 16 (p
// >> 1) and the three after it. The B fragment: register h of that lane holds column g, rows 4t + 16h and three more.
TEST(FragmentLayout, AWarpMultipliesWhatBelongsTogether) {
  constexpr int kRows = 16, kCols = 256;
  const CounterRng rng(5);
  std::vector<uint8_t> codes(kRows * kCols);
  std::vector<int> x(kCols);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(rng.bits(i) % 3);
  for (size_t i = 0; i < x.size(); ++i) x[i] = int(rng.bits(1000 + i) % 256) - 128;
  int sums[kRows] = {};
  for (int tile = 0; tile < 2; ++tile) {
    uint32_t fragments[32];  // four activations a word, here their indices
    for (int j = 0; j < 32; ++j) fragments[fragment_word(j)] = uint32_t(tile * 128 + 4 * j);
    for (int lane = 0; lane < 32; ++lane) {
      for (int s = 0; s < 4; ++s) {
        const uint32_t word = pack_word(codes.data(), kRows, kCols, 2, (tile * 32 + lane) * 4 + s);
        for (int p = 0; p < 4; ++p) {
          const uint32_t first = fragments[lane % 4 * 8 + 2 * s + p / 2];
          for (int b = 0; b < 4; ++b)
            sums[lane / 4 + 8 * (p % 2)] += int(word >> (8 * b + 2 * p) & 3) * x[first + size_t(b)];
        }
      }
    }
  }
  for (int row = 0; row < kRows; ++row) {
    int want = 0;
    for (int col = 0; col < kCols; ++col) want += codes[size_t(row * kCols + col)] * x[size_t(col)];
    EXPECT_EQ(sums[row], want) << row;
  }
}

}  // namespace
}  // namespace bitnet::cuda
