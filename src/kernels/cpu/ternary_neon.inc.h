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

// Four rows of a tile of a head's upper codes: column quads v and 4 + v.
static inline int8x16_t sketch_first(uint8x16_t bytes) { return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(31))); }
template <int v>
static inline int8x16_t sketch_second(uint8x16_t bytes, uint8x16_t low_bits) {
  const uint8x16_t upper = vandq_u8(vshrq_n_u8(bytes, 3), vdupq_n_u8(28));
  return vreinterpretq_s8_u8(vorrq_u8(upper, vreinterpretq_u8_s8(field<v>(low_bits))));
}
