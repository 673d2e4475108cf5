// Included inside the anonymous namespace of an isa_NAME.cc after float_ops.inc.h: what TrainingKernels promises.

// kTileRowsAtOnce x kTileVectors sums stay in registers while k passes.
static void product_i16(const int16_t* a, const int16_t* b, int64_t n_pairs, int32_t* c) {
  for (int64_t row = 0; row < kProductRows; row += kTileRowsAtOnce) {
    for (int64_t col = 0; col < kProductCols; col += 16 * kTileVectors) {
      I32x16 sums[kTileRowsAtOnce][kTileVectors];
      BN_UNROLL for (int r = 0; r < kTileRowsAtOnce; ++r) {
        BN_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[r][v] = zero_i32();
      }
      const int16_t *x = a + 2 * row, *y = b + 2 * col;
      for (int64_t p = 0; p < n_pairs; ++p, x += 2 * kProductRows, y += 2 * kProductCols) {
        I16Pairs columns[kTileVectors];
        BN_UNROLL for (int v = 0; v < kTileVectors; ++v) columns[v] = load_pairs(y + 32 * v);
        BN_UNROLL for (int r = 0; r < kTileRowsAtOnce; ++r) {
          const I16Pairs factor = broadcast_pair(x + 2 * r);
          BN_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[r][v] = add_products(sums[r][v], factor, columns[v]);
        }
      }
      BN_UNROLL for (int r = 0; r < kTileRowsAtOnce; ++r) {
        BN_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          store_i32(c + (row + r) * kProductCols + col + 16 * v, sums[r][v]);
        }
      }
    }
  }
}

static void product_f32(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, float* c) {
  for (int64_t row = 0; row < kProductRows; row += kTileRowsAtOnce) {
    for (int64_t col = 0; col < kProductCols; col += 16 * kTileVectors) {
      F32x16 sums[kTileRowsAtOnce][kTileVectors];
      BN_UNROLL for (int r = 0; r < kTileRowsAtOnce; ++r) {
        BN_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[r][v] = zero();
      }
      const float *x = a + row, *y = b + col;
      for (int64_t k = 0; k < n; ++k, x += a_stride, y += b_stride) {
        F32x16 columns[kTileVectors];
        BN_UNROLL for (int v = 0; v < kTileVectors; ++v) columns[v] = load(y + 16 * v);
        BN_UNROLL for (int r = 0; r < kTileRowsAtOnce; ++r) {
          const F32x16 factor = broadcast(x[r]);
          BN_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[r][v] = add(sums[r][v], mul(factor, columns[v]));
        }
      }
      BN_UNROLL for (int r = 0; r < kTileRowsAtOnce; ++r) {
        BN_UNROLL for (int v = 0; v < kTileVectors; ++v) store(c + (row + r) * kProductCols + col + 16 * v, sums[r][v]);
      }
    }
  }
}

static void scale_product(const int32_t* c, int64_t n, float factor, bool add_to_out, float* out) {
  const F32x16 f = broadcast(factor);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 y = mul(load_i32(c + i), f);
    store(out + i, add_to_out ? add(load(out + i), y) : y);
  }
  for (; i < n; ++i) out[i] = add_to_out ? out[i] + float(c[i]) * factor : float(c[i]) * factor;
}

static float absmax(const float* x, int64_t n) { return absmax_above(x, n, 0.0f); }
static float sum_squares(const float* x, int64_t n) { return dot_product(x, x, n); }

static void column_absmax(const float* x, float factor, int64_t n, float* out) {
  const F32x16 f = broadcast(factor);
  map2(x, out, n, out, [&](F32x16 v, F32x16 largest) { return max(abs(mul(v, f)), largest); });
}

static void quantize_i16(const float* x, float scale, int64_t n, int16_t* out) {
  const F32x16 s = broadcast(scale);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_i16(out + i, round_half_even(mul(load(x + i), s)));
  if (i == n) return;
  int16_t lanes[16];
  store_i16(lanes, round_half_even(mul(load_part(x + i, n - i), s)));
  for (int64_t j = 0; i + j < n; ++j) out[i + j] = lanes[j];
}

static void quantize_pairs(const float* a, float a_factor, const float* b, float b_factor, const float* scales,
                           int64_t n, int16_t* out) {
  const F32x16 fa = broadcast(a_factor), fb = broadcast(b_factor);
  int16_t first[16], second[16];
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 s = load(scales + i);
    store_i16(first, round_half_even(mul(mul(load(a + i), fa), s)));
    store_i16(second, round_half_even(mul(mul(load(b + i), fb), s)));
    for (int j = 0; j < 16; ++j) {
      out[2 * (i + j)] = first[j];
      out[2 * (i + j) + 1] = second[j];
    }
  }
  if (i == n) return;
  const F32x16 s = load_part(scales + i, n - i);
  store_i16(first, round_half_even(mul(mul(load_part(a + i, n - i), fa), s)));
  store_i16(second, round_half_even(mul(mul(load_part(b + i, n - i), fb), s)));
  for (int64_t j = 0; i + j < n; ++j) {
    out[2 * (i + j)] = first[j];
    out[2 * (i + j) + 1] = second[j];
  }
}

static void widen_pairs(const int8_t* a, const int8_t* b, int16_t offset, int64_t n, int16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    out[2 * i] = int16_t(a[i] + offset);
    out[2 * i + 1] = int16_t(b[i] + offset);
  }
}

static void rms_norm_backward(const float* x, const float* weight, float eps, const float* dy, int64_t n, bool add_dx,
                              float* dx, float* dweight) {
  F32x16 products = zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    products = add(products, mul(mul(load(dy + i), load(weight + i)), load(x + i)));
  }
  if (i < n) {
    const F32x16 v = load_part(x + i, n - i);
    products = add(products, mul(mul(load_part(dy + i, n - i), load_part(weight + i, n - i)), v));
  }
  const float r = norm_factor(x, n, eps);
  const F32x16 factor = broadcast(r), mean = broadcast((fold(products) / float(n)) * (r * r * r));
  const auto step = [&](F32x16 v, F32x16 w, F32x16 g, F32x16 old, F32x16 dw, F32x16* d, F32x16* dw_out) {
    *dw_out = add(dw, mul(mul(g, v), factor));
    *d = add(old, sub(mul(mul(factor, w), g), mul(mean, v)));
  };
  for (i = 0; i + 16 <= n; i += 16) {
    F32x16 d, dw;
    step(load(x + i), load(weight + i), load(dy + i), add_dx ? load(dx + i) : zero(), load(dweight + i), &d, &dw);
    store(dx + i, d);
    store(dweight + i, dw);
  }
  if (i < n) {
    const int64_t rest = n - i;
    F32x16 d, dw;
    step(load_part(x + i, rest), load_part(weight + i, rest), load_part(dy + i, rest),
         add_dx ? load_part(dx + i, rest) : zero(), load_part(dweight + i, rest), &d, &dw);
    store_part(dx + i, d, rest);
    store_part(dweight + i, dw, rest);
  }
}

// fn(gate, up, dout, &dgate, &dup) on 16 lanes at a time.
template <class Fn>
static inline void gate_gradients(const float* gate, const float* up, const float* dout, int64_t n, float* dgate,
                                  float* dup, const Fn& fn) {
  F32x16 dg, du;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    fn(load(gate + i), load(up + i), load(dout + i), &dg, &du);
    store(dgate + i, dg);
    store(dup + i, du);
  }
  if (i == n) return;
  fn(load_part(gate + i, n - i), load_part(up + i, n - i), load_part(dout + i, n - i), &dg, &du);
  store_part(dgate + i, dg, n - i);
  store_part(dup + i, du, n - i);
}
static void relu2_backward(const float* gate, const float* up, const float* dout, int64_t n, float* dgate, float* dup) {
  gate_gradients(gate, up, dout, n, dgate, dup, [](F32x16 g, F32x16 u, F32x16 d, F32x16* dg, F32x16* du) {
    *dg = where_positive(g, mul(mul(add(g, g), u), d));
    *du = where_positive(g, mul(mul(g, g), d));
  });
}
static void silu_backward(const float* gate, const float* up, const float* dout, int64_t n, float* dgate, float* dup) {
  const F32x16 one = broadcast(1.0f);
  gate_gradients(gate, up, dout, n, dgate, dup, [&](F32x16 g, F32x16 u, F32x16 d, F32x16* dg, F32x16* du) {
    const F32x16 s = div(one, add(one, exp(negate(g))));
    *dg = mul(mul(mul(s, add(one, mul(g, sub(one, s)))), u), d);
    *du = mul(mul(g, s), d);
  });
}

static void softmax_backward(const float* p, float mean, float scale, int64_t n, float* dp) {
  const F32x16 m = broadcast(mean), s = broadcast(scale);
  map2(p, dp, n, dp, [&](F32x16 v, F32x16 d) { return mul(mul(v, sub(d, m)), s); });
}

static void add_scaled(const float* x, float factor, int64_t n, float* y) {
  const F32x16 f = broadcast(factor);
  map2(y, x, n, y, [&](F32x16 a, F32x16 b) { return add(a, mul(b, f)); });
}

static void adamw(const AdamwArgs& a) {
  const F32x16 factor = broadcast(a.factor), beta1 = broadcast(a.beta1), beta2 = broadcast(a.beta2);
  const F32x16 rest1 = broadcast(1.0f - a.beta1), rest2 = broadcast(1.0f - a.beta2);
  const F32x16 eps = broadcast(a.eps), keep = broadcast(a.keep), rate = broadcast(a.rate), root = broadcast(a.root);
  const auto step = [&](F32x16 gradient, F32x16* m, F32x16* v, F32x16* p) {
    const F32x16 g = mul(gradient, factor);
    *m = add(mul(beta1, *m), mul(rest1, g));
    *v = add(mul(beta2, *v), mul(rest2, mul(g, g)));
    *p = sub(mul(*p, keep), mul(rate, div(*m, add(mul(sqrt(*v), root), eps))));
  };
  F32x16 m, v, p;
  int64_t i = 0;
  for (; i + 16 <= a.n; i += 16) {
    m = load(a.m + i), v = load(a.v + i), p = load(a.p + i);
    step(load(a.gradients + i), &m, &v, &p);
    store(a.m + i, m);
    store(a.v + i, v);
    store(a.p + i, p);
  }
  if (i == a.n) return;
  const int64_t n = a.n - i;
  m = load_part(a.m + i, n), v = load_part(a.v + i, n), p = load_part(a.p + i, n);
  step(load_part(a.gradients + i, n), &m, &v, &p);
  store_part(a.m + i, m, n);
  store_part(a.v + i, v, n);
  store_part(a.p + i, p, n);
}
