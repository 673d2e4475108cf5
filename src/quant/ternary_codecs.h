#pragma once

#include <cstdint>

// The loops over values of the packed layouts and of the absmean quantiser, as plain tables of functions, so that an
// instruction set may bring its own (src/kernels/cpu/isa_codecs_*.cc). All of them give the bytes and bits of
// kPlainTernaryCodecs. This header includes no library header, because those files must not
// (docs/add-a-kernel.md).
namespace bitnet {

// Whole blocks one after another (quant/ternary_blocks.h). Bytes of a block that hold its scale are neither read nor
// written.
struct BlockCodec {
  // False where a code means no ternary value; `codes` are then undefined.
  bool (*decode)(const uint8_t* in, int64_t n_blocks, uint8_t* codes);
  // False where a code is above 2; `out` is then undefined.
  bool (*encode)(const uint8_t* codes, int64_t n_blocks, uint8_t* out);
  // decode() with stores around the caches, to `codes` on a cache line; a fence goes behind it. Null: there is none.
  bool (*decode_past)(const uint8_t* in, int64_t n_blocks, uint8_t* codes) = nullptr;
};

constexpr int64_t kLineBytes = 64;  // of a cache
constexpr int64_t kMagnitudeLanes = 8;

struct TernaryCodecs {
  const char* name;
  BlockCodec i2_s, i2_s_arm64, tq1_0, tq2_0, iq2_bn, iq1_bn, q1_0, q2_0, q2_0_g128;
  BlockCodec bytes, two_bit, base3;  // a block is one byte: 1, 4 and 5 codes

  // transformers' packing: codes[k][i] is in[i] >> 2k & 3. Null: a quarter that is not wanted, or, of encode, zeros.
  bool (*decode_quarters)(const uint8_t* in, int64_t n, uint8_t* const codes[4]);
  bool (*encode_quarters)(const uint8_t* const codes[4], int64_t n, uint8_t* out);
  bool (*decode_quarters_past)(const uint8_t* in, int64_t n, uint8_t* const codes[4]);  // as decode_past

  // lanes[i % 8] += |x[i]| in order of i; n is a multiple of 8.
  void (*add_magnitudes)(const float* x, int64_t n, double lanes[kMagnitudeLanes]);
  // Code 2 where x[i] * scale > 0.5, 0 where it is < -0.5, else 1.
  void (*round_to_codes)(const float* x, int64_t n, float scale, uint8_t* codes);

  // Whole lines to an aligned place, around the caches; null where stores do that by themselves. The fence goes behind
  // the last of them.
  void (*store_lines)(const uint8_t* from, int64_t n_lines, uint8_t* to);
  void (*fence)();
};

extern const TernaryCodecs kPlainTernaryCodecs;

}  // namespace bitnet
