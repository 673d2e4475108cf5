#pragma once

#include "base/result.h"
#include "quant/ternary_codecs.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace bitnet {

// Packed layouts of ternary matrices, byte by byte in docs/formats/ternary.md. A ternary code is w + 1: 0, 1, 2 for
// -1, 0, +1.
enum class TernaryLayout : uint8_t {
  kI2S,        // bitnet.cpp, 128 values in 32 bytes, scale in a 32-byte tail: what every published file holds
  kI2SArm64,   // bitnet.cpp built on ARM: 64 values in 16 bytes; nothing in a file tells the two apart
  kTQ1_0,      // ggml, 256 values in 54 bytes, base 3
  kTQ2_0,      // ggml, 256 values in 66 bytes
  kHfPacked,   // transformers: uint8 [ceil(rows/4), cols], four rows strided by ceil(rows/4); scale kept apart
  kBytes,      // a code a byte
  kTwoBit,     // four values a byte, the first in the low bits
  kBase3,      // five values a byte, the first the least significant digit
  kRunLength,  // runs of equal values
  kSparse,     // distances between values that are not 0
  kHybrid,     // blocks of 256, each in the smallest of five ways
  kTL1,        // bitnet.cpp's look-up tables for ARM: pairs in 4 bits, in tiles
  kTL2,        // bitnet.cpp's look-up tables for x86: triples in 5 bits, in tiles
  kQ1_0,       // ggml, 128 values of -d or +d in 18 bytes: no zeros
  kQ2_0,       // ggml, 64 values in 18 bytes
  kQ2_0G128,   // PrismML, 128 values in 34 bytes
  kIQ1BN,      // ik_llama.cpp, a row: binary16 scale, 64 values in 13 bytes
  kIQ2BN,      // ik_llama.cpp, a row: float32 scale, 64 values in 16 bytes
  kMsGpu,      // Microsoft's GPU kernels (int2): tiles of 16 rows and 32 columns; scale kept apart
};
inline constexpr int kTernaryLayouts = 19;

// Where a layout keeps its multipliers.
enum class ScaleKind : uint8_t { kApart, kTensorF32, kRowF32, kRowF16, kGroupF16 };

struct TernaryLayoutInfo {
  TernaryLayout layout;
  std::string_view name;  // as messages say it: "I2_S"
  std::string_view flag;  // as command lines say it: "i2_s"
  ScaleKind scales;
  int64_t group_cols;    // of kGroupF16
  double bits_a_weight;  // scales included, of a large matrix; 0 where it depends on the values
};
const TernaryLayoutInfo& ternary_layout_info(TernaryLayout layout);
std::span<const TernaryLayoutInfo> ternary_layouts();  // all, in order of the enumeration
const char* ternary_layout_name(TernaryLayout layout);
std::optional<TernaryLayout> parse_ternary_layout(std::string_view flag);
// Whether bytes follow from the shape. Run-length, sparse and hybrid sizes depend on the values.
bool has_fixed_size(TernaryLayout layout);

// How TL1 and TL2 cut a matrix: bitnet.cpp generates code for one cut a shape, and a file does not tell it.
struct LutTile {
  int64_t rows = 0;        // BM; 0: what bitnet.cpp ships for this shape, or else the largest that fits
  int64_t cols = 0;        // BK
  int64_t inner_rows = 0;  // bm: 32 or 64
};

// A packed matrix [n_rows, n_cols] somewhere in memory; a view, cheap to copy.
struct TernaryView {
  TernaryLayout layout = TernaryLayout::kI2S;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  std::span<const std::byte> bytes;
  LutTile tile;  // of TL1 and TL2
};

// The multipliers of a ternary matrix: one for the tensor (groups empty), or one a group of `group_cols` columns of a
// row: groups [n_rows, n_cols / group_cols]. An all-zero group's scale is irrelevant; readers report it as `tensor`.
struct TernaryScales {
  float tensor = 1.0f;
  int64_t group_cols = 0;
  std::vector<float> groups;
};

// Bytes of a whole matrix in this layout (scales included where the layout carries them), or why the shape does not
// fit: I2S wants rows * cols % 128 == 0 (64 for Arm64), blocks with scales want rows of whole blocks, tiles want whole
// tiles; the others take any shape. An error for layouts whose size depends on the values.
Result<uint64_t> ternary_bytes(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile = {});
// The cut that a TL1 or TL2 matrix has, or why there is none.
Result<LutTile> resolve_lut_tile(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile = {});

// Whether the shape fits the layout and the bytes are as many as it takes.
Status check_ternary_view(const TernaryView& view);

// Codes of rows [row_begin, row_begin + n_rows) as bytes, row-major [n_rows, n_cols]. Refuses codes that mean no
// ternary value (2-bit code 3; a base-3 byte no encoder makes), naming row and column. Layouts without a fixed size are
// read from their beginning whatever the rows. `codecs` here and below: the loops of this machine
// (cpu_ternary_codecs(), kernels/cpu/dispatch.h), which give the same faster.
Status decode_ternary(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes,
                      const TernaryCodecs& codecs = kPlainTernaryCodecs);

// The scales a layout carries: finite and positive, or an error (0 is taken where all values it scales are 0, as
// llama.cpp writes it). Blocks or rows that agree, all-zero ones apart, collapse to one tensor scale. Layouts whose
// scale is kept apart carry none: an error.
Result<TernaryScales> ternary_scales(const TernaryView& view);

// The multiplier of one value.
float ternary_scale_at(const TernaryScales& scales, int64_t n_cols, int64_t row, int64_t col);
// Whether all values that are not 0 have the same multipliers, or the first place where they do not.
Status same_scales(std::span<const uint8_t> codes, int64_t n_rows, int64_t n_cols, const TernaryScales& a,
                   const TernaryScales& b);

// Packs codes [n_rows, n_cols] with their scales. One tensor scale is written to every block or row that wants one,
// rounded to binary16 where the layout keeps 16 bits. Refuses grouped scales for layouts with a single one, zeros for
// Q1_0, and shapes as ternary_bytes does.
Result<std::vector<std::byte>> encode_ternary(TernaryLayout layout, int64_t n_rows, int64_t n_cols,
                                              std::span<const uint8_t> codes, const TernaryScales& scales,
                                              LutTile tile = {}, const TernaryCodecs& codecs = kPlainTernaryCodecs);
// Into memory of ternary_bytes() bytes; for layouts of a fixed size.
Status encode_ternary(TernaryLayout layout, int64_t n_rows, int64_t n_cols, std::span<const uint8_t> codes,
                      const TernaryScales& scales, std::span<std::byte> out, LutTile tile = {},
                      const TernaryCodecs& codecs = kPlainTernaryCodecs);

struct PackedTernary {
  std::vector<std::byte> bytes;
  TernaryScales scales;  // also those that the bytes carry
};
// The same matrix in another layout: every code and every scale equal afterwards, or an error that says what the other
// layout cannot hold (grouped scales, a scale that 16 bits round, zeros, the shape). `apart` holds the scales of a
// source that carries none.
Result<PackedTernary> convert_ternary(const TernaryView& source, const TernaryScales* apart, TernaryLayout to,
                                      LutTile tile = {}, const TernaryCodecs& codecs = kPlainTernaryCodecs);

// BitNet b1.58's weight quantiser (Ma et al. 2024, section 2): s = 1 / max(mean|w|, 1e-5), code = clamp(round half
// even(w * s), -1, 1) + 1. Returns 1/s, the effective multiplier alpha. The mean is summed in double: value i in lane
// i mod 8, the lanes then in order from 0.
float absmean_ternarize(std::span<const float> weights, uint8_t* codes,
                        const TernaryCodecs& codecs = kPlainTernaryCodecs);

// True when every value is -a, 0 or +a for one positive finite a (or all are 0, then alpha = 1): fills codes, *alpha.
bool exact_ternary(std::span<const float> weights, uint8_t* codes, float* alpha);

}  // namespace bitnet
