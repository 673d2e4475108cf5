// Included inside the anonymous namespace of an isa_neon*.cc before tile_ops.inc.h. Its
//   add_products(sums, a, b)  adds four products of int8 in -127..127 to each of four sums.
struct Codes {
  int8x16_t q[4];
};
struct QuadSums {
  int32x4_t q[4];
};
constexpr int kTileQueries = 2, kKeyBias = 0;
static inline QuadSums no_sums() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
static inline F32x16 to_floats(QuadSums sums) {
  return map4([&](int i) { return vcvtq_f32_s32(sums.q[i]); });
}
static inline Codes load_codes64(const uint8_t* p) {
  Codes codes;
  BN_UNROLL for (int i = 0; i < 4; ++i) codes.q[i] = vreinterpretq_s8_u8(vld1q_u8(p + 16 * i));
  return codes;
}
static inline Codes low_halves(Codes c) {
  BN_UNROLL for (int i = 0; i < 4; ++i) c.q[i] = vandq_s8(c.q[i], vdupq_n_s8(15));
  return c;
}
static inline Codes high_halves(Codes c) {
  BN_UNROLL for (int i = 0; i < 4; ++i) { c.q[i] = vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(c.q[i]), 4)); }
  return c;
}
static inline void add_value(QuadSums* sums, Codes codes, int32_t four) {
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
  BN_UNROLL for (int i = 0; i < 4; ++i) sums->q[i] = add_products(sums->q[i], codes.q[i], x);
}
template <int kBits>
static inline void add_key(QuadSums* sums, Codes codes, int32_t four) {
  add_value(sums, codes, four);
}
