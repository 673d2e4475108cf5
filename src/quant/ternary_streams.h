#pragma once

#include "base/result.h"
#include "quant/ternary.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// The layouts whose size depends on the values, byte by byte in docs/formats/ternary.md. Numbers are LEB128: seven bits
// a byte, the low ones first, bit 7 set on all but the last.
namespace bitnet::ternary {

// Codes are 0, 1 or 2.
std::vector<std::byte> encode_stream(TernaryLayout layout, std::span<const uint8_t> codes);

// Values [begin, end) of the flattened matrix. Refuses streams that end early, hold more than the matrix, or that the
// encoder does not make.
Status decode_stream(const TernaryView& view, int64_t begin, int64_t end, uint8_t* codes);

}  // namespace bitnet::ternary
