#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// Packed layouts of ternary matrices, byte by byte in docs/formats/. A ternary code is w + 1: 0, 1, 2 for -1, 0, +1.
enum class TernaryLayout : uint8_t {
  kI2S,       // bitnet.cpp, 128 values in 32 bytes, scale in a 32-byte tail: what every published file holds
  kI2SArm64,  // bitnet.cpp built on ARM: 64 values in 16 bytes; nothing in a file tells the two apart
  kTQ1_0,     // ggml, 256 values in 54 bytes, base 3
  kTQ2_0,     // ggml, 256 values in 66 bytes
  kHfPacked,  // transformers: uint8 [ceil(rows/4), cols], four rows strided by ceil(rows/4); scale kept apart
};
const char* ternary_layout_name(TernaryLayout layout);

// A packed matrix [n_rows, n_cols] somewhere in memory; a view, cheap to copy.
struct TernaryView {
  TernaryLayout layout = TernaryLayout::kI2S;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  std::span<const std::byte> bytes;
};

// The multipliers of a ternary matrix: one for the tensor (groups empty), or one a group of `group_cols` columns of a
// row: groups [n_rows, n_cols / group_cols]. An all-zero group's scale is irrelevant; readers report it as `tensor`.
struct TernaryScales {
  float tensor = 1.0f;
  int64_t group_cols = 0;
  std::vector<float> groups;
};

// Bytes of a whole matrix in this layout (scales included where the layout carries them), or why the shape does not
// fit: I2S wants rows * cols % 128 == 0 (64 for Arm64), TQ* wants cols % 256 == 0; HfPacked takes any shape.
Result<uint64_t> ternary_bytes(TernaryLayout layout, int64_t n_rows, int64_t n_cols);

// Whether the shape fits the layout and the bytes are as many as it takes.
Status check_ternary_view(const TernaryView& view);

// Codes of rows [row_begin, row_begin + n_rows) as bytes, row-major [n_rows, n_cols]. Refuses codes that mean no
// ternary value (2-bit code 3; a base-3 byte no encoder makes), naming row and column.
Status decode_ternary(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes);

// The scales a layout carries (I2S, TQ*): finite and positive, or an error (0 is taken where all values it scales are
// 0, as llama.cpp writes it). TQ* blocks that agree, all-zero blocks
// apart, collapse to one tensor scale. HfPacked carries none: an error.
Result<TernaryScales> ternary_scales(const TernaryView& view);

// Packs codes [n_rows, n_cols] with their scales. One tensor scale is written to every block that wants one.
// Refuses grouped scales for layouts with a single one, and shapes as ternary_bytes does.
Result<std::vector<std::byte>> encode_ternary(TernaryLayout layout, int64_t n_rows, int64_t n_cols,
                                              std::span<const uint8_t> codes, const TernaryScales& scales);

// BitNet b1.58's weight quantiser (Ma et al. 2024, section 2): s = 1 / max(mean|w|, 1e-5), code = clamp(round half
// even(w * s), -1, 1) + 1. Returns 1/s, the effective multiplier alpha. The mean is summed in double.
float absmean_ternarize(std::span<const float> weights, uint8_t* codes);

// True when every value is -a, 0 or +a for one positive finite a (or all are 0, then alpha = 1): fills codes, *alpha.
bool exact_ternary(std::span<const float> weights, uint8_t* codes, float* alpha);

}  // namespace bitnet
