// Included inside the anonymous namespace of an isa_neon*.cc. A tile's block is eight registers of four rows each.

// Codes of column quad j: bits 2j, 2j + 1 of each byte.
template <int j>
static inline int8x16_t field(uint8x16_t bytes) {
  if constexpr (j == 0) {
    return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(3)));
  } else if constexpr (j == 3) {
    return vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6));
  } else {
    return vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 2 * j), vdupq_n_u8(3)));
  }
}
