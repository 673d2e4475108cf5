// Included inside the anonymous namespace of an isa_NAME.cc after float_ops.inc.h: products with float weights of every
// stored type, their widening to float32, and attention's weighted sum.

typedef uint16_t U16Unaligned __attribute__((aligned(1), may_alias));

static inline float scale_at(const uint8_t* p) { return f16_to_f32(*reinterpret_cast<const U16Unaligned*>(p)); }
static inline U8x16 load_bytes(const uint8_t* p) {
  U8x16 v;
  __builtin_memcpy(&v, p, 16);
  return v;
}

// How the values of each stored type become floats. A row is a sequence of blocks of kCols columns in kBytes bytes; an
// opened block gives vector `step` of its kCols / 16, and with `step` known while compiling its unpacking lies flat.
// kValueBytes is 0 where rows always fill whole blocks. Every value equals quant/blocks.h dequantize: the products of
// scales and codes are exact in float32 but for one rounding at the end.
struct F32Row {
  static constexpr int kCols = 16, kBytes = 64, kValueBytes = 4;
  typedef const uint8_t* Block;
  static inline Block open(const uint8_t* p) { return p; }
  static inline F32x16 load16(Block block, int) { return load(reinterpret_cast<const float*>(block)); }
};
struct F16Row {
  static constexpr int kCols = 16, kBytes = 32, kValueBytes = 2;
  typedef const uint8_t* Block;
  static inline Block open(const uint8_t* p) { return p; }
  static inline F32x16 load16(Block block, int) { return load_f16(reinterpret_cast<const uint16_t*>(block)); }
};
struct Bf16Row {
  static constexpr int kCols = 16, kBytes = 32, kValueBytes = 2;
  typedef const uint8_t* Block;
  static inline Block open(const uint8_t* p) { return p; }
  static inline F32x16 load16(Block block, int) { return load_bf16(reinterpret_cast<const uint16_t*>(block)); }
};
struct Q8_0Row {  // [f16 d][32 int8]: d * q
  static constexpr int kCols = 32, kBytes = 34, kValueBytes = 0;
  struct Block {
    const uint8_t* codes;
    F32x16 d;
  };
  static inline Block open(const uint8_t* p) {
    return {p + 2, broadcast_f16(*reinterpret_cast<const U16Unaligned*>(p))};
  }
  static inline F32x16 load16(const Block& block, int step) {
    return mul(from_i8(load_bytes(block.codes + 16 * step)), block.d);
  }
};
struct Q4_0Row {  // [f16 d][16 bytes: low nibbles, then high]: d * (q - 8)
  static constexpr int kCols = 32, kBytes = 18, kValueBytes = 0;
  struct Block {
    U8x16 bytes;
    float d;
  };
  static inline Block open(const uint8_t* p) { return {load_bytes(p + 2), scale_at(p)}; }
  static inline F32x16 load16(const Block& block, int step) {
    const U8x16 codes = (step == 0 ? block.bytes & 15 : block.bytes >> 4) - 8;
    return mul(from_i8(codes), broadcast(block.d));
  }
};
struct Q6_KRow {  // [128 low nibbles][64 high bits][16 int8 scales][f16 d]: d * scale * (q - 32)
  static constexpr int kCols = 256, kBytes = 210, kValueBytes = 0;
  struct Block {
    uint8_t codes[256];
    float factors[16];
  };
  static inline Block open(const uint8_t* p) {
    Block block;
    BN_UNROLL for (int quarter = 0; quarter < 8; ++quarter) {  // of either half
      U8x32 low, high;
      __builtin_memcpy(&low, p + quarter / 4 * 64 + quarter % 2 * 32, 32);
      __builtin_memcpy(&high, p + 128 + quarter / 4 * 32, 32);
      low = quarter % 4 < 2 ? low & 15 : low >> 4;
      const U8x32 codes = (low | (high >> uint8_t(quarter % 4 * 2) & 3) << 4) - 32;
      __builtin_memcpy(block.codes + 32 * quarter, &codes, 32);
    }
    store(block.factors, mul(from_i8(load_bytes(p + 192)), broadcast(scale_at(p + 208))));
    return block;
  }
  static inline F32x16 load16(const Block& block, int step) {
    return mul(from_i8(load_bytes(block.codes + 16 * step)), broadcast(block.factors[step]));
  }
};
struct Q4_KRow {  // [f16 d][f16 dmin][12 bytes: eight 6-bit scales and minima][128 bytes]: d * scale * q - dmin * min
  static constexpr int kCols = 256, kBytes = 144, kValueBytes = 0;
  struct Block {
    uint8_t codes[256];
    float factors[16];  // of the eight parts
    float minima[16];
  };
  static inline Block open(const uint8_t* p) {
    Block block;
    U8x16 scales = {}, minima = {};
    for (int i = 0; i < 4; ++i) {
      const int low = p[4 + i], middle = p[8 + i], high = p[12 + i];
      scales[i] = uint8_t(low & 63);
      minima[i] = uint8_t(middle & 63);
      scales[4 + i] = uint8_t((high & 15) | low >> 6 << 4);
      minima[4 + i] = uint8_t(high >> 4 | middle >> 6 << 4);
    }
    store(block.factors, mul(from_i8(scales), broadcast(scale_at(p))));
    store(block.minima, mul(from_i8(minima), broadcast(scale_at(p + 2))));
    BN_UNROLL for (int part = 0; part < 8; ++part) {
      U8x32 bytes;
      __builtin_memcpy(&bytes, p + 16 + part / 2 * 32, 32);
      bytes = part % 2 == 0 ? bytes & 15 : bytes >> 4;
      __builtin_memcpy(block.codes + 32 * part, &bytes, 32);
    }
    return block;
  }
  static inline F32x16 load16(const Block& block, int step) {
    const F32x16 product = mul(from_i8(load_bytes(block.codes + 16 * step)), broadcast(block.factors[step / 2]));
    return sub(product, broadcast(block.minima[step / 2]));
  }
};

// The last n < 16 columns of a row, zeros behind.
template <class Row>
static inline F32x16 load_tail(const uint8_t* p, int64_t n) {
  uint8_t values[64] = {};
  for (int64_t i = 0; i < n * Row::kValueBytes; ++i) values[i] = p[i];
  return Row::load16(Row::open(values), 0);
}

// Reading several rows at once, the processor's own prefetcher falls behind, and it stops at each page: rows are asked
// for at least this much earlier, in the order in which they lie.
constexpr int64_t kAhead_bytes = 4096;

// R rows with X vectors at once; each sum keeps its own lanes, so the tiling never shows in the result.
template <class Row, int R, int X>
static inline void dot_tile(const DotArgs& a, int64_t row, int64_t vector) {
  const uint8_t* const rows = a.rows + row * a.row_bytes;
  const uint8_t* ahead = rows + (1 + kAhead_bytes / (R * a.row_bytes)) * R * a.row_bytes;
  const float* const x = a.x + vector * a.x_stride;
  F32x16 sums[R * X];
  BN_UNROLL for (int i = 0; i < R * X; ++i) sums[i] = zero();
  const int64_t n_blocks = a.n_cols / Row::kCols;
  for (int64_t i = 0; i < n_blocks; ++i) {
    BN_UNROLL for (int line = 0; line < R * Row::kBytes; line += 64) __builtin_prefetch(ahead + line);
    ahead += R * Row::kBytes;
    typename Row::Block blocks[R];
    BN_UNROLL for (int r = 0; r < R; ++r) blocks[r] = Row::open(rows + r * a.row_bytes + i * Row::kBytes);
    BN_UNROLL for (int step = 0; step < Row::kCols / 16; ++step) {
      F32x16 w[R];
      BN_UNROLL for (int r = 0; r < R; ++r) w[r] = Row::load16(blocks[r], step);
      BN_UNROLL for (int j = 0; j < X; ++j) {
        const F32x16 v = load(x + j * a.x_stride + i * Row::kCols + 16 * step);
        BN_UNROLL for (int r = 0; r < R; ++r) sums[j * R + r] = add(sums[j * R + r], mul(w[r], v));
      }
    }
  }
  if constexpr (Row::kValueBytes > 0) {
    const int64_t n_full = n_blocks * Row::kCols, n = a.n_cols - n_full;
    for (int j = 0; n > 0 && j < X; ++j) {
      const F32x16 v = load_part(x + j * a.x_stride + n_full, n);
      for (int r = 0; r < R; ++r) {
        const F32x16 w = load_tail<Row>(rows + r * a.row_bytes + n_full * Row::kValueBytes, n);
        sums[j * R + r] = add(sums[j * R + r], mul(w, v));
      }
    }
  }
  float* const out = a.out + vector * a.out_stride + row;
  if constexpr (R == 4) {
    BN_UNROLL for (int j = 0; j < X; ++j) {
      fold4(sums[j * R], sums[j * R + 1], sums[j * R + 2], sums[j * R + 3], out + j * a.out_stride);
    }
  } else if constexpr (R * X == 4) {
    float folded[4];
    fold4(sums[0], sums[1], sums[2], sums[3], folded);
    for (int i = 0; i < 4; ++i) out[i / R * a.out_stride + i % R] = folded[i];
  } else {
    BN_UNROLL for (int i = 0; i < R * X; ++i) out[i / R * a.out_stride + i % R] = fold(sums[i]);
  }
}

template <class Row>
static void dot(const DotArgs& a) {
  int64_t vector = 0;
  for (; vector + kDotVectors <= a.n_x; vector += kDotVectors) {
    int64_t row = 0;
    for (; row + kDotRows <= a.n_rows; row += kDotRows) dot_tile<Row, kDotRows, kDotVectors>(a, row, vector);
    for (; row < a.n_rows; ++row) {
      for (int64_t j = vector; j < vector + kDotVectors; ++j) dot_tile<Row, 1, 1>(a, row, j);
    }
  }
  constexpr int kRows = 4;  // with a single vector: enough sums in flight to hide the adder's latency
  for (; vector < a.n_x; ++vector) {
    int64_t row = 0;
    for (; row + kRows <= a.n_rows; row += kRows) dot_tile<Row, kRows, 1>(a, row, vector);
    for (; row < a.n_rows; ++row) dot_tile<Row, 1, 1>(a, row, vector);
  }
}

template <class Row>
static void widen(const uint8_t* row, int64_t n_cols, float* out) {
  int64_t col = 0;
  for (; col + Row::kCols <= n_cols; col += Row::kCols, row += Row::kBytes) {
    const typename Row::Block block = Row::open(row);
    BN_UNROLL for (int step = 0; step < Row::kCols / 16; ++step) store(out + col + 16 * step, Row::load16(block, step));
  }
  if constexpr (Row::kValueBytes > 0) {
    if (col < n_cols) store_part(out + col, load_tail<Row>(row, n_cols - col), n_cols - col);
  }
}

// Q outputs with V vectors of columns from `col` at once. What the values add up to is added to the outputs.
template <class Row, int Q, int V>
static inline void weighted_sum_tile(const WeightedSumArgs& a, int64_t first, int64_t col) {
  F32x16 sums[Q * V];
  float* const out = a.out + first * a.out_stride + col;
  const float* const weights = a.weights + first * a.weights_stride;
  BN_UNROLL for (int i = 0; i < Q * V; ++i) sums[i] = zero();
  // In whole blocks the first vector's place in its block is known while compiling.
  constexpr int kSteps = Row::kCols / 16;
  const int first_step = V % kSteps == 0 ? 0 : int(col / 16 % kSteps);
  const uint8_t* row = a.values + col / Row::kCols * Row::kBytes;
  for (int64_t t = 0; t < a.n_values; ++t, row += a.row_bytes) {
    BN_UNROLL for (int line = 0; line < V * Row::kBytes / kSteps; line += 64)
        __builtin_prefetch(row + kAhead_bytes + line);
    F32x16 v[V];
    BN_UNROLL for (int i = 0; i < V; ++i) {
      const int step = first_step + i;
      v[i] = Row::load16(Row::open(row + step / kSteps * Row::kBytes), step % kSteps);
    }
    BN_UNROLL for (int j = 0; j < Q; ++j) {
      const F32x16 e = broadcast(weights[j * a.weights_stride + t]);
      BN_UNROLL for (int i = 0; i < V; ++i) sums[j * V + i] = add(sums[j * V + i], mul(e, v[i]));
    }
  }
  BN_UNROLL for (int i = 0; i < Q * V; ++i) {
    float* const to = out + i / V * a.out_stride + i % V * 16;
    store(to, add(load(to), sums[i]));
  }
}
template <class Row>
static inline void weighted_sum_tail(const WeightedSumArgs& a, int64_t first, int64_t col, int64_t n) {
  float* const out = a.out + first * a.out_stride + col;
  F32x16 sum = zero();
  for (int64_t t = 0; t < a.n_values; ++t) {
    const F32x16 v = load_tail<Row>(a.values + t * a.row_bytes + col * Row::kValueBytes, n);
    sum = add(sum, mul(broadcast(a.weights[first * a.weights_stride + t]), v));
  }
  store_part(out, add(load_part(out, n), sum), n);
}
template <class Row, int Q>
static inline void weighted_sum_rows(const WeightedSumArgs& a, int64_t first) {
  int64_t col = 0;
  for (; col + 16 * kSumVectors <= a.n_cols; col += 16 * kSumVectors)
    weighted_sum_tile<Row, Q, kSumVectors>(a, first, col);
  for (; col + 16 <= a.n_cols; col += 16) weighted_sum_tile<Row, Q, 1>(a, first, col);
  if constexpr (Row::kValueBytes > 0) {
    for (int64_t j = first; col < a.n_cols && j < first + Q; ++j) weighted_sum_tail<Row>(a, j, col, a.n_cols - col);
  }
}
template <class Row>
static void weighted_sum(const WeightedSumArgs& a) {
  int64_t first = 0;
  for (; first + kSumOutputs <= a.n_out; first += kSumOutputs) weighted_sum_rows<Row, kSumOutputs>(a, first);
  for (; first < a.n_out; ++first) weighted_sum_rows<Row, 1>(a, first);
}
