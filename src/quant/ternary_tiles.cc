#include "quant/ternary_tiles.h"

#include <array>
#include <cstring>

namespace bitnet {
namespace {

struct Preset {
  int64_t n_rows, n_cols;
  LutTile tl1, tl2;
};
// What bitnet.cpp ships (preset_kernels/*/kernel_config_tl*.ini) for bitnet_b1_58-large, -3B and Llama3-8B-1.58.
constexpr std::array kPresets = std::to_array<Preset>({
    {1536, 4096, {256, 128, 32}, {256, 96, 32}},
    {1536, 1536, {128, 64, 64}, {128, 192, 32}},
    {3200, 8640, {160, 64, 32}, {160, 96, 32}},
    {3200, 3200, {320, 128, 64}, {320, 96, 32}},
    {8640, 3200, {320, 64, 32}, {320, 96, 32}},
    {14336, 4096, {256, 128, 64}, {256, 96, 32}},
    {4096, 14336, {256, 128, 32}, {128, 96, 32}},
    {1024, 4096, {128, 64, 64}, {256, 96, 32}},
    {4096, 4096, {128, 64, 32}, {128, 96, 32}},
});

LutTile chosen_tile(TernaryLayout layout, int64_t n_rows, int64_t n_cols) {
  for (const Preset& preset : kPresets) {
    if (preset.n_rows == n_rows && preset.n_cols == n_cols) {
      return layout == TernaryLayout::kTL1 ? preset.tl1 : preset.tl2;
    }
  }
  LutTile tile{0, layout == TernaryLayout::kTL2 ? 96 : n_cols % 128 == 0 ? 128 : 64, 32};
  for (const int64_t rows : {256, 320, 160, 128, 96, 64, 32}) {
    if (tile.rows == 0 && n_rows % rows == 0) tile.rows = rows;
  }
  return tile;
}

}  // namespace

Result<LutTile> resolve_lut_tile(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile) {
  if (tile.rows == 0) tile = chosen_tile(layout, n_rows, n_cols);
  const char* name = ternary_layout_name(layout);
  const bool tl1 = layout == TernaryLayout::kTL1;
  const bool inner = tile.inner_rows == 32 || (tl1 && tile.inner_rows == 64);
  const bool shaped = inner && tile.rows > 0 && tile.rows % tile.inner_rows == 0 && tile.cols > 0 &&
                      tile.cols <= 4096 && tile.cols % (tl1 ? 8 : 24) == 0;
  if (!shaped) {
    return invalid_argument("{} has no tiles of {} rows and {} columns in steps of {} rows", name, tile.rows, tile.cols,
                            tile.inner_rows);
  }
  if (n_rows % tile.rows != 0) {
    return invalid_input("{} cuts tiles of {} rows, which {} rows do not fill", name, tile.rows, n_rows);
  }
  const int64_t rest = n_cols % tile.cols;
  if (tl1 && rest != 0) {
    return invalid_input("{} cuts tiles of {} columns, which {} columns do not fill", name, tile.cols, n_cols);
  }
  if (!tl1 && (rest % 32 != 0 || rest > 224 || n_cols < 256)) {
    return invalid_input("{} wants at least 256 columns: tiles of {} and up to seven times 32; found {}", name,
                         tile.cols, n_cols);
  }
  return tile;
}

namespace ternary {
namespace {

// Where groups of neighbouring columns of one row lie: (byte, whether in its high nibble). A tile is cut into steps of
// inner_rows rows and `step` columns; a step holds a byte a row for its two groups.
struct NibbleTiles {
  int64_t n_row_tiles_cols;  // tiles side by side
  int64_t tile_rows, tile_groups, inner_rows, step_groups;
  bool swapped;  // the second and third eight rows of a step change places

  struct Place {
    int64_t byte;
    int shift;
  };
  Place place(int64_t row, int64_t group) const {
    const int64_t tile = row / tile_rows * n_row_tiles_cols + group / tile_groups;
    const int64_t inner = row % tile_rows / inner_rows, r = row % inner_rows, g = group % tile_groups;
    const int64_t step = (tile * (tile_rows / inner_rows) + inner) * (tile_groups / step_groups) + g / step_groups;
    const int64_t in_step = g % step_groups;
    if (!swapped) {
      // TL1: within a step 16 rows after another, bytes of a row's two groups 16 apart.
      const int64_t byte = ((r / 16) * (step_groups / 2) + in_step / 2) * 16 + r % 16;
      return {step * (inner_rows * step_groups / 2) + byte, in_step % 2 == 0 ? 4 : 0};
    }
    const int64_t eight = r / 8, at = eight == 1 ? 2 : eight == 2 ? 1 : eight;
    return {step * inner_rows + at * 8 + r % 8, in_step == 0 ? 4 : 0};
  }
};

struct Lut {
  Lut(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile) {
    tl1 = layout == TernaryLayout::kTL1;
    cut = tile;
    triple_cols = tl1 ? 0 : n_cols - n_cols % tile.cols;
    pair_cols = n_cols - triple_cols;
    sign_offset = n_rows * triple_cols / 6;
    pair_offset = sign_offset + n_rows * triple_cols / 24;
    triples = {triple_cols / tile.cols, tile.rows, tile.cols / 3, 32, 2, true};
    if (tl1) {
      pairs = {n_cols / tile.cols, tile.rows, tile.cols / 2, tile.inner_rows, 128 / tile.inner_rows, false};
    } else {
      pairs = {pair_cols / 32, tile.rows, 16, 32, 2, true};
    }
  }
  NibbleTiles::Place pair(int64_t row, int64_t group) const {
    NibbleTiles::Place place = pairs.place(row, group);
    place.byte += pair_offset;
    return place;
  }
  // A bit a triple: 8 triples of 32 rows are 16 little-endian 16-bit words, one for each pair of rows 16 apart.
  NibbleTiles::Place sign(int64_t row, int64_t group) const {
    const int64_t tile_groups = cut.cols / 3, g = group % tile_groups;
    const int64_t tile = row / cut.rows * (triple_cols / cut.cols) + group / tile_groups;
    const int64_t block = (tile * (cut.rows / 32) + row % cut.rows / 32) * (tile_groups / 8) + g / 8;
    const int64_t r = row % 32, bit = 15 - (g % 8 * 2 + r / 16);
    return {sign_offset + block * 32 + r % 16 * 2 + bit / 8, int(bit % 8)};
  }

  bool tl1 = false;
  LutTile cut;
  int64_t triple_cols = 0, pair_cols = 0, sign_offset = 0, pair_offset = 0;
  NibbleTiles triples, pairs;
};

}  // namespace

Status encode_lut(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile, const uint8_t* codes,
                  uint8_t* out) {
  BN_ASSIGN_OR_RETURN(tile, resolve_lut_tile(layout, n_rows, n_cols, tile));
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, ternary_bytes(layout, n_rows, n_cols, tile));
  std::memset(out, 0, size_bytes);
  const Lut lut(layout, n_rows, n_cols, tile);
  for (int64_t row = 0; row < n_rows; ++row, codes += n_cols) {
    for (int64_t g = 0; g < lut.triple_cols / 3; ++g) {
      const uint8_t* c = codes + 3 * g;
      const int value = 9 * c[0] + 3 * c[1] + c[2] - 13;
      const auto place = lut.triples.place(row, g), sign = lut.sign(row, g);
      out[place.byte] |= uint8_t((value < 0 ? -value : value) << place.shift);
      out[sign.byte] |= uint8_t((value < 0) << sign.shift);
    }
    for (int64_t g = 0; g < lut.pair_cols / 2; ++g) {
      const uint8_t* c = codes + lut.triple_cols + 2 * g;
      const auto place = lut.pair(row, g);
      out[place.byte] |= uint8_t((3 * c[0] + c[1]) << place.shift);
    }
  }
  return ok();
}

Status decode_lut(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes) {
  BN_ASSIGN_OR_RETURN(const LutTile tile, resolve_lut_tile(view.layout, view.n_rows, view.n_cols, view.tile));
  const Lut lut(view.layout, view.n_rows, view.n_cols, tile);
  const auto* in = reinterpret_cast<const uint8_t*>(view.bytes.data());
  const auto bad = [&](int64_t row, int64_t col, int nibble) {
    return invalid_input("row {}, column {}: index {}, which stands for no ternary values in {}", row, col, nibble,
                         ternary_layout_name(view.layout));
  };
  for (int64_t row = row_begin; row < row_begin + n_rows; ++row, codes += view.n_cols) {
    for (int64_t g = 0; g < lut.triple_cols / 3; ++g) {
      const auto place = lut.triples.place(row, g), sign = lut.sign(row, g);
      const int nibble = in[place.byte] >> place.shift & 15;
      const bool negative = (in[sign.byte] >> sign.shift & 1) != 0;
      if (nibble > 13 || (nibble == 0 && negative)) return bad(row, 3 * g, nibble);
      const int value = (negative ? -nibble : nibble) + 13;
      codes[3 * g] = uint8_t(value / 9);
      codes[3 * g + 1] = uint8_t(value / 3 % 3);
      codes[3 * g + 2] = uint8_t(value % 3);
    }
    for (int64_t g = 0; g < lut.pair_cols / 2; ++g) {
      const auto place = lut.pair(row, g);
      const int nibble = in[place.byte] >> place.shift & 15;
      if (nibble > 8) return bad(row, lut.triple_cols + 2 * g, nibble);
      codes[lut.triple_cols + 2 * g] = uint8_t(nibble / 3);
      codes[lut.triple_cols + 2 * g + 1] = uint8_t(nibble % 3);
    }
  }
  return ok();
}

namespace {

// A row of a tile of 16 rows and 32 columns: 16 columns are one little-endian word of 32 bits, column e of them at bits
// 8 (e % 4) + 2 (e / 4). Words run through rows 0-7 of columns 0-15, those of columns 16-31, then rows 8-15.
int64_t ms_gpu_word(int64_t n_cols, int64_t row, int64_t sixteen) {
  const int64_t tile = row / 16 * (n_cols / 32) + sixteen / 2;
  return tile * 128 + (row % 16 / 8 * 16 + sixteen % 2 * 8 + row % 8) * 4;
}

}  // namespace

void encode_ms_gpu(int64_t n_rows, int64_t n_cols, const uint8_t* codes, uint8_t* out) {
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t s = 0; s < n_cols / 16; ++s, codes += 16) {
      uint8_t* word = out + ms_gpu_word(n_cols, row, s);
      for (int b = 0; b < 4; ++b) {
        int byte = 0;
        for (int j = 0; j < 4; ++j) byte |= (codes[4 * j + b] + 1) << (2 * j);
        word[b] = uint8_t(byte);
      }
    }
  }
}

// Four columns at a time: those at bits 2j of a word's bytes are columns 4j to 4j + 3.
Status decode_ms_gpu(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes) {
  constexpr uint32_t kLowBits = 0x55555555, kFour = 0x03030303, kOnes = 0x01010101;
  for (int64_t row = row_begin; row < row_begin + n_rows; ++row) {
    for (int64_t s = 0; s < view.n_cols / 16; ++s, codes += 16) {
      uint32_t word = 0;
      std::memcpy(&word, view.bytes.data() + ms_gpu_word(view.n_cols, row, s), sizeof word);
      if (((word | word >> 1) & kLowBits) != kLowBits) {
        int e = 0;
        while ((word >> (e % 4 * 8 + e / 4 * 2) & 3) != 0) ++e;
        return invalid_input("row {}, column {}: 2-bit value 0, which stands for no ternary value in {}", row,
                             16 * s + e, ternary_layout_name(view.layout));
      }
      for (int j = 0; j < 4; ++j) {
        const uint32_t four = (word >> (2 * j) & kFour) - kOnes;
        std::memcpy(codes + 4 * j, &four, sizeof four);
      }
    }
  }
  return ok();
}

}  // namespace ternary
}  // namespace bitnet
