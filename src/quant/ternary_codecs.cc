#include "quant/ternary_codecs.h"

#include "quant/ternary_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// What every instruction set's loops compute: one block after another, as quant/ternary_blocks.h has it.
namespace bitnet {
namespace {

using namespace ternary;

bool all_codes(const uint8_t* codes, int64_t n) {
  uint8_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, codes[i]);
  return largest <= 2;
}

template <class Block>
struct Blocks {
  static bool decode(const uint8_t* in, int64_t n_blocks, uint8_t* codes) {
    bool good = true;
    for (int64_t i = 0; i < n_blocks; ++i) good &= Block::decode(in + i * Block::kBytes, codes + i * Block::kValues);
    return good;
  }
  static bool encode(const uint8_t* codes, int64_t n_blocks, uint8_t* out) {
    for (int64_t i = 0; i < n_blocks; ++i) Block::encode(codes + i * Block::kValues, out + i * Block::kBytes);
    return all_codes(codes, n_blocks * Block::kValues);
  }
};
template <class Block>
constexpr BlockCodec codec() {
  return {Blocks<Block>::decode, Blocks<Block>::encode};
}

bool copy_codes(const uint8_t* in, int64_t n, uint8_t* out) {
  std::memcpy(out, in, size_t(n));
  return all_codes(in, n);
}
bool decode_two_bit(const uint8_t* in, int64_t n, uint8_t* codes) { return unpack_neighbours(in, n, codes); }
bool encode_two_bit(const uint8_t* codes, int64_t n, uint8_t* out) {
  pack_neighbours(codes, n, out);
  return all_codes(codes, 4 * n);
}
bool decode_base3(const uint8_t* in, int64_t n, uint8_t* codes) { return unpack_base3_neighbours(in, n, codes); }
bool encode_base3(const uint8_t* codes, int64_t n, uint8_t* out) {
  pack_base3_neighbours(codes, n, out);
  return all_codes(codes, 5 * n);
}

bool decode_quarters(const uint8_t* in, int64_t n, uint8_t* const codes[4]) {
  uint8_t threes = 0;
  for (int k = 0; k < 4; ++k) {
    uint8_t* const out = codes[k];
    if (out == nullptr) continue;
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t code = in[i] >> (2 * k) & 3;
      out[i] = code;
      threes |= uint8_t(code & code >> 1);
    }
  }
  return threes == 0;
}
bool encode_quarters(const uint8_t* const codes[4], int64_t n, uint8_t* out) {
  std::memset(out, 0, size_t(n));
  bool good = true;
  for (int k = 0; k < 4; ++k) {
    if (codes[k] == nullptr) continue;
    good &= all_codes(codes[k], n);
    for (int64_t i = 0; i < n; ++i) out[i] |= uint8_t(codes[k][i] << (2 * k));
  }
  return good;
}

void add_magnitudes(const float* x, int64_t n, double lanes[kMagnitudeLanes]) {
  for (int64_t i = 0; i < n; i += kMagnitudeLanes) {
    for (int64_t k = 0; k < kMagnitudeLanes; ++k) lanes[k] += double(std::fabs(x[i + k]));
  }
}
void round_to_codes(const float* x, int64_t n, float scale, uint8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] * scale;
    codes[i] = uint8_t(1 + (v > 0.5f) - (v < -0.5f));
  }
}

}  // namespace

const TernaryCodecs kPlainTernaryCodecs = {
    "plain",
    codec<I2SBlock>(),
    codec<I2SArm64Block>(),
    codec<TQ1Block>(),
    codec<TQ2Block>(),
    codec<Iq2BnBlock>(),
    codec<Iq1BnBlock>(),
    codec<Q1Block>(),
    codec<Q2Block<64>>(),
    codec<Q2Block<128>>(),
    {copy_codes, copy_codes},
    {decode_two_bit, encode_two_bit},
    {decode_base3, encode_base3},
    decode_quarters,
    encode_quarters,
    nullptr,
    add_magnitudes,
    round_to_codes,
    nullptr,
    nullptr,
};

}  // namespace bitnet
