#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {

uint32_t load_word(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

// Four columns' codes a word: bytes stay below 256 in both packings, so that words add without carries.
uint32_t pack_fields(const uint8_t* c) {
  return load_word(c) | load_word(c + 4) << 2 | load_word(c + 8) << 4 | load_word(c + 12) << 6;
}
uint32_t pack_digits(const uint8_t* c) {
  return load_word(c) + 3 * load_word(c + 4) + 9 * load_word(c + 8) + 27 * load_word(c + 12) + 81 * load_word(c + 16);
}

template <int64_t kCols, uint32_t (*pack)(const uint8_t*)>
void pack_row(const uint8_t* codes, int64_t n_cols, int64_t stride, uint8_t* out) {
  const int64_t n_full = n_cols / kCols;
  for (int64_t block = 0; block < n_full; ++block, out += stride, codes += kCols) {
    const uint32_t word = pack(codes);
    std::memcpy(out, &word, 4);
  }
  if (n_cols % kCols != 0) {
    uint8_t last[kCols];
    std::memset(last, 1, sizeof last);
    std::memcpy(last, codes, size_t(n_cols % kCols));
    const uint32_t word = pack(last);
    std::memcpy(out, &word, 4);
  }
}

// x / 3^j, rounded down, of x below 243, within 16 bits.
template <int j>
uint16_t without_digits(uint16_t x) {
  constexpr int kFactor[5] = {1, 171, 57, 19, 203}, kShift[5] = {0, 9, 9, 9, 14};
  return uint16_t(uint16_t(x * kFactor[j]) >> kShift[j]);
}
template <int j>
void take_digits(const uint8_t* bytes, int64_t n, uint8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t x = without_digits<j>(bytes[i]);
    codes[i] = uint8_t(x - 3 * without_digits<1>(x));
  }
}

}  // namespace

uint8_t Packing::place(int64_t j) const {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  return base3 ? kPowers[j] : uint8_t(1 << 2 * j);
}

void Packing::unpack_tile(const CpuKernels& kernels, const uint8_t* tile, int64_t n_cols, uint8_t* codes) const {
  of(kernels).unpack_tile(tile, n_blocks(n_cols), codes);
  const int64_t written = n_blocks(n_cols) * block_cols() * kTileRows;
  std::memset(codes + written, 0, size_t(n_code_blocks(n_cols) * kBlockCols * kTileRows - written));
}

void pack_codes(Packing packing, const uint8_t* codes, int64_t n_cols, int64_t stride, uint8_t* out) {
  const auto pack = packing.base3 ? pack_row<kBase3BlockCols, pack_digits> : pack_row<kBlockCols, pack_fields>;
  pack(codes, n_cols, stride, out);
}

void pack_sketch_row(const uint8_t* codes, int64_t n_cols, int64_t row, uint8_t* tile) {
  uint8_t* out = tile + row / 16 * (kSketchBlockBytes / 2) + row % 16 * 4;
  for (int64_t col = 0; col < n_cols; col += kSketchBlockCols, out += kSketchBlockBytes) {
    uint8_t c[kSketchBlockCols] = {};
    std::memcpy(c, codes + col, size_t(std::min(kSketchBlockCols, n_cols - col)));
    uint32_t low_bits = 0;
    for (int v = 0; v < 4; ++v) {
      const uint32_t first = load_word(c + 4 * v), second = load_word(c + 16 + 4 * v);
      const uint32_t word = first | (second >> 2 & 0x07070707u) << 5;
      std::memcpy(out + v * kVectorBytes, &word, 4);
      low_bits |= (second & 0x03030303u) << 2 * v;
    }
    std::memcpy(out + 4 * kVectorBytes, &low_bits, 4);
  }
}

void take_codes(Packing packing, const uint8_t* bytes, int64_t n, int64_t j, uint8_t* codes) {
  constexpr void (*kTake[5])(const uint8_t*, int64_t, uint8_t*) = {take_digits<0>, take_digits<1>, take_digits<2>,
                                                                   take_digits<3>, take_digits<4>};
  if (packing.base3) return kTake[j](bytes, n, codes);
  const int shift = int(2 * j);
  for (int64_t i = 0; i < n; ++i) codes[i] = uint8_t(bytes[i] >> shift & 3);
}

}  // namespace bitnet
