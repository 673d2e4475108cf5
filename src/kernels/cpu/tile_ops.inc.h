// Included inside the anonymous namespace of an isa_NAME.cc after float_ops.inc.h: the tiled key/value cache
// (kernels/kv_tiles.h, numerics.md 14). Before it come the instruction set's
//   Codes          16 lanes of four bytes: load_codes64(), low_halves(), high_halves(),
//   QuadSums         16 sums: no_sums(), to_floats(),
//   add_key<bits>  products of codes (of 8 bits: int8, counted kKeyBias too high; of 4: 0..15) with four int8,
//   add_value      products of int8 codes with four weights in 0..127,
//   kTileQueries   queries whose sums, two vectors each, stay in registers.

// Walsh-Hadamard transform of blocks, not normalised; out may be x.
static inline void rotate_head(const float* x, int64_t n, float* out) {
  const int64_t block = rotation_block(n);
  for (int64_t i = 0; i < n; i += 16) store(out + i, load(x + i));
  for (int64_t half = 1; half < 16; half *= 2) {
    for (int64_t i = 0; i < n; i += 2 * half) {
      for (int64_t j = i; j < i + half; ++j) {
        const float a = out[j], b = out[j + half];
        out[j] = a + b;
        out[j + half] = a - b;
      }
    }
  }
  for (int64_t half = 16; half < block; half *= 2) {
    for (int64_t i = 0; i < n; i += 2 * half) {
      for (int64_t j = i; j < i + half; j += 16) {
        const F32x16 a = load(out + j), b = load(out + j + half);
        store(out + j, add(a, b));
        store(out + j + half, sub(a, b));
      }
    }
  }
}

// Rounds a rotated head to codes and returns the absolute value that the largest code stands for.
template <int kBits>
static inline float encode_head(const float* x, int64_t n, int8_t* codes) {
  float rotated[kMaxTileDims];
  rotate_head(x, n, rotated);
  const float largest = absmax_above(rotated, n, kTileAbsmaxFloor);
  const F32x16 inverse = broadcast((kBits == 8 ? 127.0f : 7.5f) / largest);
  for (int64_t i = 0; i < n; i += 16) {
    const F32x16 v = mul(load(rotated + i), inverse);
    if constexpr (kBits == 8) {
      store_i8(codes + i, max(min(round_half_even(v), broadcast(127.0f)), broadcast(-127.0f)));
    } else {
      store_i8(codes + i, max(min(round_half_even(add(v, broadcast(7.5f))), broadcast(15.0f)), zero()));
    }
  }
  return largest;
}

static void encode_query(const float* x, int64_t head_dim, float* out) {
  int8_t codes[kMaxTileDims];
  const float largest = encode_head<8>(x, head_dim, codes);
  QueryScale scale = {(largest / 127.0f) * (1.0f / float(rotation_block(head_dim))), 0};
  for (int64_t i = 0; i < head_dim; ++i) scale.sum += codes[i];
  __builtin_memcpy(out, codes, uint64_t(head_dim));
  __builtin_memcpy(reinterpret_cast<int8_t*>(out) + head_dim, &scale, sizeof scale);
}

// fn(byte column, byte) for a head's codes.
template <int kBits, class Fn>
static inline void store_head(const float* x, int64_t head_dim, int64_t at, uint8_t* tile, const Fn& fn) {
  int8_t codes[kMaxTileDims];
  const float scale = encode_head<kBits>(x, head_dim, codes) / (kBits == 8 ? 127.0f : 15.0f);
  __builtin_memcpy(tile + 4 * at, &scale, 4);
  const int64_t half = head_dim / 2;
  for (int64_t c = 0; c < head_dim * kBits / 8; ++c) {
    fn(c, uint8_t(kBits == 8 ? codes[c] : codes[c] | codes[c + half] << 4));
  }
}
template <int kBits>
static void store_key(const float* x, int64_t head_dim, int64_t at, uint8_t* tile) {
  uint8_t* const codes = tile + kTileScales_bytes + 4 * at;
  store_head<kBits>(x, head_dim, at, tile,
                    [&](int64_t c, uint8_t byte) { codes[c / 4 * 4 * kTilePositions + c % 4] = byte; });
}
template <int kBits>
static void store_value(const float* x, int64_t head_dim, int64_t at, uint8_t* tile) {
  uint8_t* const codes = tile + kTileScales_bytes + at / 4 * 64 + at % 4;
  store_head<kBits>(x, head_dim, at, tile,
                    [&](int64_t c, uint8_t byte) { codes[c / 16 * 16 * kTilePositions + c % 16 * 4] = byte; });
}

// As kAhead_bytes of dot_ops.inc.h: two lines of the streams below.
static inline void prefetch_tile(const uint8_t* p) {
  __builtin_prefetch(p + kAhead_bytes);
  __builtin_prefetch(p + kAhead_bytes + 64);
}

// Q queries with the 32 positions from `first` on of one tile.
template <int kBits, int Q>
static inline void score_tile(const KeyScoreArgs& a, const uint8_t* tile, int64_t query, int64_t first, float* scores) {
  const int8_t* x[Q];
  BN_UNROLL for (int j = 0; j < Q; ++j) x[j] = reinterpret_cast<const int8_t*>(a.queries + (query + j) * a.stride);
  QuadSums sums[2 * Q];
  BN_UNROLL for (int i = 0; i < 2 * Q; ++i) sums[i] = no_sums();
  const int64_t n_columns = a.head_dim * kBits / 8;
  const uint8_t* p = tile + kTileScales_bytes + 4 * first;
  for (int64_t c = 0; c < n_columns; c += 4, p += 4 * kTilePositions) {
    prefetch_tile(p);
    BN_UNROLL for (int v = 0; v < 2; ++v) {
      const Codes codes = load_codes64(p + 64 * v);
      if constexpr (kBits == 8) {
        BN_UNROLL for (int j = 0; j < Q; ++j) add_key<8>(&sums[2 * j + v], codes, load_quad(x[j] + c));
      } else {
        const Codes low = low_halves(codes), high = high_halves(codes);
        BN_UNROLL for (int j = 0; j < Q; ++j) {
          add_key<4>(&sums[2 * j + v], low, load_quad(x[j] + c));
          add_key<4>(&sums[2 * j + v], high, load_quad(x[j] + n_columns + c));
        }
      }
    }
  }
  // Integers below 2^24 in float32: exact up to the products with scales.
  BN_UNROLL for (int j = 0; j < Q; ++j) {
    QueryScale query_scale;
    __builtin_memcpy(&query_scale, x[j] + a.head_dim, sizeof query_scale);
    const F32x16 bias = broadcast(float((kBits == 8 ? kKeyBias : 15) * query_scale.sum));
    BN_UNROLL for (int v = 0; v < 2; ++v) {
      F32x16 product = to_floats(sums[2 * j + v]);
      product = sub(kBits == 8 ? product : add(product, product), bias);
      const F32x16 scale = load(reinterpret_cast<const float*>(tile) + first + 16 * v);
      store(scores + j * a.scores_stride + first + 16 * v, mul(mul(product, scale), broadcast(query_scale.factor)));
    }
  }
}
template <int kBits>
static void score_keys(const KeyScoreArgs& a) {
  const uint8_t* tile = a.tiles;
  for (int64_t i = 0; i < a.n_tiles; ++i, tile += a.tile_bytes) {
    for (int64_t first = 0; first < kTilePositions; first += 32) {
      int64_t query = 0;
      float* scores = a.scores + i * kTilePositions;
      for (; query + kTileQueries <= a.n_queries; query += kTileQueries, scores += kTileQueries * a.scores_stride) {
        score_tile<kBits, kTileQueries>(a, tile, query, first, scores);
      }
      for (; query < a.n_queries; ++query, scores += a.scores_stride) {
        score_tile<kBits, 1>(a, tile, query, first, scores);
      }
    }
  }
}

static void weigh_tiles(float* scores, int64_t n, int64_t n_tiles, const uint8_t* tiles, int64_t tile_bytes,
                        int64_t fetch_begin, int64_t fetch_end) {
  for (int64_t i = 0; i < n_tiles; ++i, scores += kTilePositions, tiles += tile_bytes) {
    for (int64_t at = fetch_begin; at < fetch_end; at += 64) __builtin_prefetch(tiles + tile_bytes + at, 0, 2);
    const int64_t n_seen = n - i * kTilePositions;
    const float* const scales = reinterpret_cast<const float*>(tiles);
    F32x16 products[kTilePositions / 16];
    F32x16 largest = broadcast(kTileAbsmaxFloor);
    BN_UNROLL for (int v = 0; v < kTilePositions / 16; ++v) {
      const int64_t rest = n_seen - 16 * v;
      products[v] = rest >= 16 ? mul(load(scores + 16 * v), load(scales + 16 * v))
                    : rest > 0 ? mul(load_part(scores + 16 * v, rest), load_part(scales + 16 * v, rest))
                               : zero();
      largest = max(products[v], largest);
    }
    const float top = fold_max(largest);
    const F32x16 inverse = broadcast(127.0f / top);
    TileWeights weights = {{}, top / 127.0f, 0};
    BN_UNROLL for (int v = 0; v < kTilePositions / 16; ++v) {
      store_i8(weights.codes + 16 * v, max(min(round_half_even(mul(products[v], inverse)), broadcast(127.0f)), zero()));
    }
    for (int64_t t = 0; t < kTilePositions; ++t) weights.sum += weights.codes[t];
    __builtin_memcpy(scores, &weights, sizeof weights);
  }
}

// Q queries with one part: two times 16 dimensions.
template <int kBits, int Q>
static inline void sum_part(const TileSumArgs& a, int64_t query, int64_t part) {
  constexpr int kBlocks = kBits == 8 ? 2 : 1;              // of 16 byte columns
  const int64_t apart = kBits == 8 ? 16 : a.head_dim / 2;  // from the first 16 dimensions to the others
  float* const out = a.out + query * a.stride + part * 16 * kBlocks;
  const uint8_t* p = a.tiles + kTileScales_bytes + part * kBlocks * 16 * kTilePositions;
  const float* weights = a.weights + query * a.weights_stride;
  F32x16 totals[2 * Q];
  BN_UNROLL for (int i = 0; i < 2 * Q; ++i) totals[i] = zero();
  for (int64_t tile = 0; tile < a.n_tiles; ++tile, p += a.tile_bytes, weights += kTilePositions) {
    QuadSums sums[2 * Q];
    BN_UNROLL for (int i = 0; i < 2 * Q; ++i) sums[i] = no_sums();
    const int8_t* x[Q];
    BN_UNROLL for (int j = 0; j < Q; ++j) x[j] = reinterpret_cast<const int8_t*>(weights + j * a.weights_stride);
    for (int64_t t = 0; t < kTilePositions; t += 4) {
      BN_UNROLL for (int block = 0; block < kBlocks; ++block) {
        const uint8_t* const q = p + block * 16 * kTilePositions + 16 * t;
        __builtin_prefetch(q + a.tile_bytes);
        const Codes codes = load_codes64(q);
        if constexpr (kBits == 8) {
          BN_UNROLL for (int j = 0; j < Q; ++j) add_value(&sums[2 * j + block], codes, load_quad(x[j] + t));
        } else {
          const Codes low = low_halves(codes), high = high_halves(codes);
          BN_UNROLL for (int j = 0; j < Q; ++j) {
            add_value(&sums[2 * j], low, load_quad(x[j] + t));
            add_value(&sums[2 * j + 1], high, load_quad(x[j] + t));
          }
        }
      }
    }
    BN_UNROLL for (int j = 0; j < Q; ++j) {
      float factor;
      int32_t sum;
      __builtin_memcpy(&factor, x[j] + kTilePositions, 4);
      __builtin_memcpy(&sum, x[j] + kTilePositions + 4, 4);
      BN_UNROLL for (int v = 0; v < 2; ++v) {
        F32x16 product = to_floats(sums[2 * j + v]);
        if constexpr (kBits == 4) product = sub(add(product, product), broadcast(float(15 * sum)));
        totals[2 * j + v] = add(totals[2 * j + v], mul(product, broadcast(factor)));
      }
    }
  }
  BN_UNROLL for (int j = 0; j < Q; ++j) {
    store(out + j * a.stride, totals[2 * j]);
    store(out + j * a.stride + apart, totals[2 * j + 1]);
  }
}
template <int kBits>
static void sum_values(const TileSumArgs& a) {
  for (int64_t part = a.first_part; part < a.end_part; ++part) {
    int64_t query = 0;
    for (; query + kTileQueries <= a.n_queries; query += kTileQueries) sum_part<kBits, kTileQueries>(a, query, part);
    for (; query < a.n_queries; ++query) sum_part<kBits, 1>(a, query, part);
  }
}

static void finish_head(float* x, int64_t head_dim, float factor) {
  scale(x, head_dim, factor * (1.0f / float(rotation_block(head_dim))));
  rotate_head(x, head_dim, x);
}
