// Included inside the anonymous namespace of an isa_NAME.cc after its vec_NAME.inc.h: the float operations of
// docs/numerics.md, the same IEEE operations in the same order as float_spec.h, on 16 lanes.

// The first n < 16 values, zeros behind. A lane never holds -0, so adding a product of such zeros changes nothing.
static inline F32x16 load_part(const float* p, int64_t n) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
static inline void store_part(float* p, F32x16 a, int64_t n) {
  float lanes[16];
  store(lanes, a);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// out[i] = fn(vector of x, vector of y) for two inputs of n values.
template <class Fn>
static inline void map2(const float* x, const float* y, int64_t n, float* out, const Fn& fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, fn(load(x + i), load(y + i)));
  if (i < n) store_part(out + i, fn(load_part(x + i, n - i), load_part(y + i, n - i)), n - i);
}
template <class Fn>
static inline void map1(const float* x, int64_t n, float* out, const Fn& fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, fn(load(x + i)));
  if (i < n) store_part(out + i, fn(load_part(x + i, n - i)), n - i);
}

static inline F32x16 round_half_even(F32x16 a) {
  const F32x16 magic = broadcast(kRoundMagic);
  return sub(add(a, magic), magic);
}

// 2^k, k an integer in [-127, 127].
static inline F32x16 power_of_two(F32x16 k) { return shift_to_exponent(add(k, broadcast(kRoundMagic + 127.0f))); }

static inline F32x16 exp(F32x16 x) {
  x = max(broadcast(kExpMin), x);  // in this order a NaN stays
  x = min(broadcast(kExpMax), x);
  const F32x16 n = round_half_even(mul(x, broadcast(kLog2E)));
  const F32x16 r = sub(sub(x, mul(n, broadcast(kLn2High))), mul(n, broadcast(kLn2Low)));
  F32x16 p = add(mul(broadcast(kExpC6), r), broadcast(kExpC5));
  p = add(mul(p, r), broadcast(kExpC4));
  p = add(mul(p, r), broadcast(kExpC3));
  p = add(mul(p, r), broadcast(kExpC2));
  p = add(add(mul(mul(r, r), p), r), broadcast(1.0f));
  const F32x16 n1 = round_half_even(mul(n, broadcast(0.5f)));
  return mul(mul(p, power_of_two(n1)), power_of_two(sub(n, n1)));
}

static float dot_product(const float* a, const float* b, int64_t n) {
  F32x16 sum = zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sum = add(sum, mul(load(a + i), load(b + i)));
  if (i < n) sum = add(sum, mul(load_part(a + i, n - i), load_part(b + i, n - i)));
  return fold(sum);
}

// The squares of 16 << kLevels values, summed by neighbours kLevels times: 16 sums.
template <int kLevels>
static inline F32x16 square_sums(const float* x) {
  if constexpr (kLevels == 0) {
    const F32x16 v = load(x);
    return mul(v, v);
  } else {
    return add_neighbours<kLevels - 1>(square_sums<kLevels - 1>(x), square_sums<kLevels - 1>(x + (8 << kLevels)));
  }
}
// A whole block of numerics.md 5.
constexpr int64_t kSquareBlock = 256;
static inline float square_block(const float* x) {
  F32x16 sums = square_sums<4>(x);
  sums = add_neighbours<4>(sums, sums);
  sums = add_neighbours<5>(sums, sums);
  sums = add_neighbours<6>(sums, sums);
  return first_lane(add_neighbours<7>(sums, sums));
}
// 1 / sqrt(mean of the squares + eps) (numerics.md 5).
static float norm_factor(const float* x, int64_t n, float eps) {
  float sum = 0.0f;
  int64_t i = 0;
  for (; i + kSquareBlock <= n; i += kSquareBlock) sum += square_block(x + i);
  if (i < n) {
    float block[kSquareBlock] = {};
    __builtin_memcpy(block, x + i, uint64_t(n - i) * sizeof(float));
    sum += square_block(block);
  }
  return 1.0f / __builtin_sqrtf(sum * (1.0f / float(n)) + eps);
}

static void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const F32x16 r = broadcast(norm_factor(x, n, eps));
  map2(x, weight, n, out, [&](F32x16 v, F32x16 w) { return mul(mul(v, r), w); });
}

// The largest absolute value, at least `floor`.
static inline float absmax_above(const float* x, int64_t n, float floor) {
  F32x16 largest = broadcast(floor);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) largest = max(abs(load(x + i)), largest);
  if (i < n) largest = max(abs(load_part(x + i, n - i)), largest);
  return fold_max(largest);
}

// 127 / absmax(x), the scale to int8.
static inline float activation_scale(const float* x, int64_t n) { return 127.0f / absmax_above(x, n, kAbsmaxFloor); }
static inline F32x16 to_int8_range(F32x16 x, F32x16 scale) {
  return max(min(round_half_even(mul(x, scale)), broadcast(127.0f)), broadcast(-128.0f));
}

static void quantize(const float* x, int64_t n, int64_t stride, int8_t* q, float* inv_scale, int32_t* sum) {
  const float scale = activation_scale(x, n);
  const F32x16 s = broadcast(scale);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_i8(q + i, to_int8_range(load(x + i), s));
  if (i < n) {
    int8_t lanes[16];
    store_i8(lanes, to_int8_range(load_part(x + i, n - i), s));
    for (int64_t j = 0; i + j < n; ++j) q[i + j] = lanes[j];
  }
  for (int64_t j = n; j < stride; ++j) q[j] = 0;
  int32_t total = 0;
  for (int64_t j = 0; j < n; ++j) total += q[j];
  *sum = total;
  *inv_scale = 1.0f / scale;
}

static void fake_quantize(float* x, int64_t n) {
  const float scale = activation_scale(x, n);
  const F32x16 s = broadcast(scale), inverse = broadcast(1.0f / scale);
  map1(x, n, x, [&](F32x16 v) { return mul(to_int8_range(v, s), inverse); });
}

static void scale_sums(const int32_t* sums, int64_t n, int32_t q_sum, float inv_scale, float alpha, float* out) {
  const F32x16 inverse = broadcast(inv_scale), multiplier = broadcast(alpha);
  int32_t exact[16];
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int j = 0; j < 16; ++j) exact[j] = sums[i + j] - q_sum;
    store(out + i, mul(mul(load_i32(exact), inverse), multiplier));
  }
  if (i == n) return;
  for (int64_t j = 0; j < 16; ++j) exact[j] = i + j < n ? sums[i + j] - q_sum : 0;
  store_part(out + i, mul(mul(load_i32(exact), inverse), multiplier), n - i);
}

static inline void rotate(F32x16* a, F32x16* b, F32x16 c, F32x16 s) {
  const F32x16 rotated = sub(mul(*a, c), mul(*b, s));
  *b = add(mul(*b, c), mul(*a, s));
  *a = rotated;
}
static void rope(float* head, const float* cos, const float* sin, int64_t n_pairs) {
  float* const second = head + n_pairs;
  int64_t i = 0;
  for (; i + 16 <= n_pairs; i += 16) {
    F32x16 a = load(head + i), b = load(second + i);
    rotate(&a, &b, load(cos + i), load(sin + i));
    store(head + i, a);
    store(second + i, b);
  }
  if (i < n_pairs) {
    const int64_t n = n_pairs - i;
    F32x16 a = load_part(head + i, n), b = load_part(second + i, n);
    rotate(&a, &b, load_part(cos + i, n), load_part(sin + i, n));
    store_part(head + i, a, n);
    store_part(second + i, b, n);
  }
}

static void narrow_f32(const float* x, int64_t n, uint8_t* row) {
  __builtin_memcpy(row, x, uint64_t(n) * sizeof(float));
}
static void narrow_f16(const float* x, int64_t n, uint8_t* row) {
  auto* const out = reinterpret_cast<uint16_t*>(row);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_f16(out + i, load(x + i));
  if (i < n) {
    uint16_t lanes[16];
    store_f16(lanes, load_part(x + i, n - i));
    for (int64_t j = 0; i + j < n; ++j) out[i + j] = lanes[j];
  }
}

// Half up for a >= 0: nearest even, and one more where that dropped exactly a half. Only a remainder of 0.5 passes 0.5
// when 2^-24, a unit in its last place, is added.
static inline F32x16 round_half_up(F32x16 a) {
  const F32x16 even = round_half_even(a);
  return add(even, round_half_even(add(sub(a, even), broadcast(0x1p-24f))));
}
// Each sign apart, so that halves go away from zero; limited before rounding because 1 / d may be infinite.
static inline F32x16 to_q8_0_code(F32x16 x, F32x16 inverse) {
  const F32x16 v = mul(x, inverse), limit = broadcast(127.0f);
  const F32x16 above = round_half_up(min(max(v, zero()), limit));
  return sub(above, round_half_up(min(max(negate(v), zero()), limit)));
}
static void narrow_q8_0(const float* x, int64_t n, uint8_t* row) {
  for (int64_t i = 0; i + 32 <= n; i += 32, row += 34) {
    const F32x16 low = load(x + i), high = load(x + i + 16);
    const float d = fold_max(max(abs(high), max(abs(low), zero()))) / 127.0f;
    const F32x16 inverse = broadcast(d != 0.0f ? 1.0f / d : 0.0f);
    uint16_t halves[16];
    store_f16(halves, broadcast(d));
    __builtin_memcpy(row, halves, 2);
    int8_t codes[32];
    store_i8(codes, to_q8_0_code(low, inverse));
    store_i8(codes + 16, to_q8_0_code(high, inverse));
    __builtin_memcpy(row + 2, codes, 32);
  }
}

static float softmax(float* scores, int64_t n, float scale) {
  const F32x16 factor = broadcast(scale);
  const float lowest = -__builtin_inff();
  F32x16 largest = broadcast(lowest);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 scaled = mul(load(scores + i), factor);
    store(scores + i, scaled);
    largest = max(scaled, largest);
  }
  float top = fold_max(largest);
  for (; i < n; ++i) {
    scores[i] *= scale;
    top = scores[i] > top ? scores[i] : top;
  }
  const F32x16 m = broadcast(top);
  F32x16 sum = zero();
  for (i = 0; i + 16 <= n; i += 16) {
    const F32x16 e = exp(sub(load(scores + i), m));
    store(scores + i, e);
    sum = add(sum, e);
  }
  if (i < n) {
    store_part(scores + i, exp(sub(load_part(scores + i, n - i), m)), n - i);
    sum = add(sum, load_part(scores + i, n - i));
  }
  return 1.0f / fold(sum);
}

static void scale(float* x, int64_t n, float factor) {
  const F32x16 f = broadcast(factor);
  map1(x, n, x, [&](F32x16 v) { return mul(v, f); });
}

static void gate_relu2(const float* gate, const float* up, int64_t n, float* out) {
  map2(gate, up, n, out, [](F32x16 g, F32x16 u) { return where_positive(g, mul(mul(g, g), u)); });
}
static void gate_silu(const float* gate, const float* up, int64_t n, float* out) {
  map2(gate, up, n, out, [](F32x16 g, F32x16 u) { return mul(div(g, add(broadcast(1.0f), exp(negate(g)))), u); });
}
static void add_to(const float* x, int64_t n, float* y) {
  map2(y, x, n, y, [](F32x16 a, F32x16 b) { return add(a, b); });
}

// u lies in the middle of the four codes that begin as it does when its lower two bits are 1.5.
static void sketch_row(const float* w, int64_t n, float step, float inverse_step, int8_t* upper, int8_t* lower,
                       float* errors) {
  F32x16 upper_error = zero(), error = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const F32x16 v = load(w + i);
    const F32x16 code = round_half_even(add(mul(v, broadcast(inverse_step)), broadcast(63.5f)));
    const F32x16 u = min(max(code, zero()), broadcast(127.0f));
    const F32x16 c = round_half_even(mul(sub(u, broadcast(1.5f)), broadcast(0.25f)));
    const F32x16 first = mul(c, broadcast(4.0f));
    store_i8(upper + i, c);
    store_i8(lower + i, sub(u, first));
    const F32x16 upper_rest = sub(v, mul(sub(first, broadcast(62.0f)), broadcast(step)));
    const F32x16 rest = sub(v, mul(sub(u, broadcast(63.5f)), broadcast(step)));
    upper_error = add(upper_error, mul(upper_rest, upper_rest));
    error = add(error, mul(rest, rest));
  }
  errors[0] = fold(upper_error);
  errors[1] = fold(error);
}
