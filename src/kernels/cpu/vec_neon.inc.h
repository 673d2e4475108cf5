// Included inside the anonymous namespace of an isa_NAME.cc: 16 floats as four NEON registers.
struct F32x16 {
  float32x4_t q[4];
};

// Register tiles: rows x vectors of a product, outputs x vectors of a weighted sum.
constexpr int kDotRows = 2, kDotVectors = 2;
constexpr int kSumOutputs = 2, kSumVectors = 1;

template <class Fn>
static inline F32x16 map4(const Fn& fn) {
  return {{fn(0), fn(1), fn(2), fn(3)}};
}

static inline F32x16 broadcast(float x) {
  return map4([&](int) { return vdupq_n_f32(x); });
}
static inline F32x16 zero() { return broadcast(0.0f); }
static inline F32x16 load(const float* p) {
  return map4([&](int i) { return vld1q_f32(p + 4 * i); });
}
static inline void store(float* p, F32x16 a) { BN_UNROLL for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.q[i]); }

static inline F32x16 add(F32x16 a, F32x16 b) {
  return map4([&](int i) { return vaddq_f32(a.q[i], b.q[i]); });
}
static inline F32x16 sub(F32x16 a, F32x16 b) {
  return map4([&](int i) { return vsubq_f32(a.q[i], b.q[i]); });
}
static inline F32x16 mul(F32x16 a, F32x16 b) {
  return map4([&](int i) { return vmulq_f32(a.q[i], b.q[i]); });
}
static inline F32x16 div(F32x16 a, F32x16 b) {
  return map4([&](int i) { return vdivq_f32(a.q[i], b.q[i]); });
}
// a > b ? a : b and a < b ? a : b, so b where they are unordered (FMAX would give the NaN).
static inline float32x4_t greater(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline F32x16 max(F32x16 a, F32x16 b) {
  return map4([&](int i) { return greater(a.q[i], b.q[i]); });
}
static inline F32x16 min(F32x16 a, F32x16 b) {
  return map4([&](int i) { return vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); });
}
static inline F32x16 abs(F32x16 a) {
  return map4([&](int i) { return vabsq_f32(a.q[i]); });
}
// a where g > 0, else +0.
static inline F32x16 where_positive(F32x16 g, F32x16 a) {
  return map4(
      [&](int i) { return vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(g.q[i]), vreinterpretq_u32_f32(a.q[i]))); });
}
static inline F32x16 negate(F32x16 a) {
  return map4([&](int i) { return vnegq_f32(a.q[i]); });
}

static inline F32x16 load_f16(const uint16_t* p) {
  return map4([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
static inline F32x16 load_bf16(const uint16_t* p) {
  return map4([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
static inline float f16_to_f32(uint16_t half) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}
static inline F32x16 broadcast_f16(uint16_t half) { return broadcast(f16_to_f32(half)); }
static inline F32x16 load_i32(const int32_t* p) {
  return map4([&](int i) { return vcvtq_f32_s32(vld1q_s32(p + 4 * i)); });
}
static inline F32x16 from_i8(U8x16 bytes) {
  const int8x16_t v = vreinterpretq_s8_u8(reinterpret_cast<uint8x16_t>(bytes));
  const int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_s8(vget_high_s8(v));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
static inline void store_f16(uint16_t* p, F32x16 a) {
  BN_UNROLL for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.q[i])));
}
// Of integers in [-128, 127].
static inline void store_i8(int8_t* p, F32x16 a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.q[0])), vmovn_s32(vcvtq_s32_f32(a.q[1])));
  const int16x8_t high = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.q[2])), vmovn_s32(vcvtq_s32_f32(a.q[3])));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
// The bits of each lane shifted left by 23: an integer in the mantissa becomes an exponent.
static inline F32x16 shift_to_exponent(F32x16 a) {
  return map4([&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a.q[i]), 23)); });
}

// Lanes folded in the order of numerics.md 4: l + 8, l + 4, l + 2, l + 1.
static inline float fold(F32x16 a) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
static inline void fold4(F32x16 a, F32x16 b, F32x16 c, F32x16 d, float* sums) {
  sums[0] = fold(a);
  sums[1] = fold(b);
  sums[2] = fold(c);
  sums[3] = fold(d);
}
// Sums by neighbours (numerics.md 5) of 16 vectors, level after level from 0 on, the last four of them with a = b; then
// all lanes have the sum. Values stay in order.
template <int kLevel>
static inline F32x16 add_neighbours(F32x16 a, F32x16 b) {
  return {
      {vpaddq_f32(a.q[0], a.q[1]), vpaddq_f32(a.q[2], a.q[3]), vpaddq_f32(b.q[0], b.q[1]), vpaddq_f32(b.q[2], b.q[3])}};
}
static inline float first_lane(F32x16 a) { return vgetq_lane_f32(a.q[0], 0); }
static inline float fold_max(F32x16 a) {
  const float32x4_t four = greater(greater(a.q[0], a.q[2]), greater(a.q[1], a.q[3]));
  const float x = vgetq_lane_f32(four, 0), y = vgetq_lane_f32(four, 1);
  const float z = vgetq_lane_f32(four, 2), w = vgetq_lane_f32(four, 3);
  const float xz = x > z ? x : z, yw = y > w ? y : w;
  return xz > yw ? xz : yw;
}

// Training: tiles of kTileRowsAtOnce rows x kTileVectors vectors, square roots, and int16 pairs.
constexpr int kTileRowsAtOnce = 4, kTileVectors = 1;
static inline F32x16 sqrt(F32x16 a) {
  return map4([&](int i) { return vsqrtq_f32(a.q[i]); });
}
// Of integers in [-32768, 32767].
static inline void store_i16(int16_t* p, F32x16 a) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vmovn_s32(vcvtq_s32_f32(a.q[i])));
}
struct I32x16 {
  int32x4_t q[4];
};
struct I16Pairs {
  int16x8x2_t q[2];  // the first of each pair and the second
};
static inline I32x16 zero_i32() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
static inline void store_i32(int32_t* p, I32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, a.q[i]);
}
static inline I16Pairs load_pairs(const int16_t* p) { return {{vld2q_s16(p), vld2q_s16(p + 16)}}; }
static inline I16Pairs broadcast_pair(const int16_t* p) {
  const int16x8x2_t pair = {{vdupq_n_s16(p[0]), vdupq_n_s16(p[1])}};
  return {{pair, pair}};
}
static inline I32x16 add_products(I32x16 sum, I16Pairs a, I16Pairs b) {
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      sum.q[2 * i] = vmlal_s16(sum.q[2 * i], vget_low_s16(a.q[i].val[j]), vget_low_s16(b.q[i].val[j]));
      sum.q[2 * i + 1] = vmlal_high_s16(sum.q[2 * i + 1], a.q[i].val[j], b.q[i].val[j]);
    }
  }
  return sum;
}
