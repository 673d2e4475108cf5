// Included inside the anonymous namespace of an isa_NAME.cc: 16 floats as four vectors of the compiler's own, which any
// processor can run (SSE2, baseline NEON or scalars).
typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x4 __attribute__((vector_size(16)));
typedef uint32_t U32x4 __attribute__((vector_size(16)));
struct F32x16 {
  F32x4 q[4];
};

// Register tiles: rows x vectors of a product, outputs x vectors of a weighted sum.
constexpr int kDotRows = 2, kDotVectors = 2;
constexpr int kSumOutputs = 2, kSumVectors = 1;

template <class Fn>
static inline F32x16 map4(const Fn& fn) {
  return {{fn(0), fn(1), fn(2), fn(3)}};
}
static inline F32x4 splat(float x) { return F32x4{x, x, x, x}; }
static inline F32x4 select(I32x4 mask, F32x4 a, F32x4 b) { return F32x4((mask & I32x4(a)) | (~mask & I32x4(b))); }

static inline F32x16 broadcast(float x) {
  return map4([&](int) { return splat(x); });
}
static inline F32x16 zero() { return broadcast(0.0f); }
static inline F32x16 load(const float* p) {
  F32x16 a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
static inline void store(float* p, F32x16 a) { __builtin_memcpy(p, &a, sizeof a); }

static inline F32x16 add(F32x16 a, F32x16 b) {
  return map4([&](int i) { return a.q[i] + b.q[i]; });
}
static inline F32x16 sub(F32x16 a, F32x16 b) {
  return map4([&](int i) { return a.q[i] - b.q[i]; });
}
static inline F32x16 mul(F32x16 a, F32x16 b) {
  return map4([&](int i) { return a.q[i] * b.q[i]; });
}
static inline F32x16 div(F32x16 a, F32x16 b) {
  return map4([&](int i) { return a.q[i] / b.q[i]; });
}
// a > b ? a : b and a < b ? a : b, so b where they are unordered.
static inline F32x16 max(F32x16 a, F32x16 b) {
  return map4([&](int i) { return select(I32x4(a.q[i] > b.q[i]), a.q[i], b.q[i]); });
}
static inline F32x16 min(F32x16 a, F32x16 b) {
  return map4([&](int i) { return select(I32x4(a.q[i] < b.q[i]), a.q[i], b.q[i]); });
}
static inline F32x16 abs(F32x16 a) {
  return map4([&](int i) { return F32x4(I32x4(a.q[i]) & 0x7fffffff); });
}
// a where g > 0, else +0.
static inline F32x16 where_positive(F32x16 g, F32x16 a) {
  return map4([&](int i) { return F32x4(I32x4(g.q[i] > splat(0.0f)) & I32x4(a.q[i])); });
}
static inline F32x16 negate(F32x16 a) {
  return map4([&](int i) { return -a.q[i]; });
}

// As base/half.h, which an instruction set's file may not include.
static inline F32x4 widen_f16(U32x4 half) {
  const U32x4 sign = (half & 0x8000u) << 16, magnitude = (half & 0x7fffu) << 13;
  const U32x4 special = U32x4(I32x4(magnitude) >= 0x0f800000);  // infinities and NaNs
  const U32x4 scaled = U32x4(F32x4(magnitude) * splat(0x1p112f));
  return F32x4(sign | (special & (0x70000000u | magnitude)) | (~special & scaled));
}
static inline U32x4 load_u16x4(const uint16_t* p) { return U32x4{p[0], p[1], p[2], p[3]}; }
static inline F32x16 load_f16(const uint16_t* p) {
  return map4([&](int i) { return widen_f16(load_u16x4(p + 4 * i)); });
}
static inline F32x16 load_bf16(const uint16_t* p) {
  return map4([&](int i) { return F32x4(load_u16x4(p + 4 * i) << 16); });
}
static inline float f16_to_f32(uint16_t half) { return widen_f16(U32x4{half, half, half, half})[0]; }
static inline F32x16 broadcast_f16(uint16_t half) { return broadcast(f16_to_f32(half)); }
static inline F32x16 load_i32(const int32_t* p) {
  return map4([&](int i) {
    return F32x4{float(p[4 * i]), float(p[4 * i + 1]), float(p[4 * i + 2]), float(p[4 * i + 3])};
  });
}
static inline F32x16 from_i8(U8x16 bytes) {
  int8_t v[16];
  __builtin_memcpy(v, &bytes, 16);
  return map4([&](int i) {
    return F32x4{float(v[4 * i]), float(v[4 * i + 1]), float(v[4 * i + 2]), float(v[4 * i + 3])};
  });
}
static inline uint16_t f32_to_f16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal: the float adder rounds
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    return uint16_t(sign | (__builtin_bit_cast(uint32_t, shifted) - 0x3f000000u));
  }
  return uint16_t(sign | ((magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13));
}
static inline void store_f16(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(a.q[i / 4][i % 4]);
}
// Of integers in [-128, 127].
static inline void store_i8(int8_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = int8_t(int32_t(a.q[i / 4][i % 4]));
}
// The bits of each lane shifted left by 23: an integer in the mantissa becomes an exponent.
static inline F32x16 shift_to_exponent(F32x16 a) {
  return map4([&](int i) { return F32x4(U32x4(a.q[i]) << 23); });
}

// Lanes folded in the order of numerics.md 4: l + 8, l + 4, l + 2, l + 1.
static inline float fold(F32x16 a) {
  const F32x4 four = (a.q[0] + a.q[2]) + (a.q[1] + a.q[3]);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
static inline void fold4(F32x16 a, F32x16 b, F32x16 c, F32x16 d, float* sums) {
  sums[0] = fold(a);
  sums[1] = fold(b);
  sums[2] = fold(c);
  sums[3] = fold(d);
}
// Sums by neighbours (numerics.md 5) of 16 vectors, level after level from 0 on, the last four of them with a = b; then
// all lanes have the sum. Values stay in order.
static inline F32x4 add_neighbours(F32x4 a, F32x4 b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
template <int kLevel>
static inline F32x16 add_neighbours(F32x16 a, F32x16 b) {
  return {{add_neighbours(a.q[0], a.q[1]), add_neighbours(a.q[2], a.q[3]), add_neighbours(b.q[0], b.q[1]),
           add_neighbours(b.q[2], b.q[3])}};
}
static inline float first_lane(F32x16 a) { return a.q[0][0]; }
static inline float fold_max(F32x16 a) {
  const F32x16 b = max(a, F32x16{{a.q[2], a.q[3], a.q[2], a.q[3]}});
  const F32x4 four = select(I32x4(b.q[0] > b.q[1]), b.q[0], b.q[1]);
  const float x = four[0] > four[2] ? four[0] : four[2], y = four[1] > four[3] ? four[1] : four[3];
  return x > y ? x : y;
}

// Sums of four products (tile_ops.inc.h).
struct Codes {
  int8_t lanes[64];
};
struct QuadSums {
  int32_t lanes[16];
};
constexpr int kTileQueries = 1, kKeyBias = 0;
static inline QuadSums no_sums() { return {}; }
static inline F32x16 to_floats(const QuadSums& sums) { return load_i32(sums.lanes); }
static inline Codes load_codes64(const uint8_t* p) {
  Codes codes;
  __builtin_memcpy(&codes, p, 64);
  return codes;
}
static inline Codes low_halves(const Codes& c) {
  Codes low;
  for (int i = 0; i < 64; ++i) low.lanes[i] = c.lanes[i] & 15;
  return low;
}
static inline Codes high_halves(const Codes& c) {
  Codes high;
  for (int i = 0; i < 64; ++i) high.lanes[i] = c.lanes[i] >> 4 & 15;
  return high;
}
static inline void add_value(QuadSums* sums, const Codes& codes, int32_t four) {
  int8_t x[4];
  __builtin_memcpy(x, &four, 4);
  for (int i = 0; i < 16; ++i) {
    const int8_t* const c = codes.lanes + 4 * i;
    sums->lanes[i] += c[0] * x[0] + c[1] * x[1] + c[2] * x[2] + c[3] * x[3];
  }
}
template <int kBits>
static inline void add_key(QuadSums* sums, const Codes& codes, int32_t four) {
  add_value(sums, codes, four);
}

// Training: tiles of kTileRowsAtOnce rows x kTileVectors vectors, square roots, and int16 pairs.
constexpr int kTileRowsAtOnce = 2, kTileVectors = 1;
static inline F32x16 sqrt(F32x16 a) {
  return map4([&](int i) {
    return F32x4{__builtin_sqrtf(a.q[i][0]), __builtin_sqrtf(a.q[i][1]), __builtin_sqrtf(a.q[i][2]),
                 __builtin_sqrtf(a.q[i][3])};
  });
}
// Of integers in [-32768, 32767].
static inline void store_i16(int16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = int16_t(int32_t(a.q[i / 4][i % 4]));
}
struct I32x16 {
  int32_t v[16];
};
struct I16Pairs {
  int16_t v[32];
};
static inline I32x16 zero_i32() { return {}; }
static inline void store_i32(int32_t* p, I32x16 a) { __builtin_memcpy(p, a.v, sizeof a.v); }
static inline I16Pairs load_pairs(const int16_t* p) {
  I16Pairs a;
  __builtin_memcpy(a.v, p, sizeof a.v);
  return a;
}
static inline I16Pairs broadcast_pair(const int16_t* p) {
  I16Pairs a;
  for (int i = 0; i < 16; ++i) __builtin_memcpy(a.v + 2 * i, p, 4);
  return a;
}
static inline I32x16 add_products(I32x16 sum, I16Pairs a, I16Pairs b) {
  for (int i = 0; i < 16; ++i) {
    sum.v[i] += int32_t(a.v[2 * i]) * b.v[2 * i] + int32_t(a.v[2 * i + 1]) * b.v[2 * i + 1];
  }
  return sum;
}
