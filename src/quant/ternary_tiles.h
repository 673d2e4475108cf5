#pragma once

#include "base/result.h"
#include "quant/ternary.h"

#include <cstdint>

// The layouts that reorder a matrix for one kernel: bitnet.cpp's look-up tables and Microsoft's GPU kernels, byte by
// byte in docs/formats/ternary.md. Views and shapes have been checked by the caller.
namespace bitnet::ternary {

Status encode_lut(TernaryLayout layout, int64_t n_rows, int64_t n_cols, LutTile tile, const uint8_t* codes,
                  uint8_t* out);
Status decode_lut(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes);

void encode_ms_gpu(int64_t n_rows, int64_t n_cols, const uint8_t* codes, uint8_t* out);
Status decode_ms_gpu(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes);

}  // namespace bitnet::ternary
