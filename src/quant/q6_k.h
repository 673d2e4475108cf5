#pragma once

#include <cstdint>

namespace bitnet {

// Encodes 256 finite values, |x| <= 32 * 65504, to one Q6_K block of 210 bytes.
void encode_q6_k_block(const float* x, uint8_t* out);

}  // namespace bitnet
