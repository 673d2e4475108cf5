// Included inside the anonymous namespace of an isa_NAME.cc with 256-bit integers, which gives before it
//   mul_add(sums, codes, x)  sums plus products of unsigned codes and int8 x, two or four of them added up in a lane,
//   widen(sums)              the same sums in 32-bit lanes, four products each,
//   kBlockSteps, kCodeSteps  how many steps of the loops below sums stay exact before they want widen().

constexpr int64_t kMatmulTokens = 6;

// Ends a step: g++ 12 would otherwise start the loads of all steps first and spill the sums that they displace.
#define BN_KEEP_ORDER(a, b) asm volatile("" : "+x"(a), "+x"(b))
// What lies at p is read again in each use: fewer registers, and all sums stay in theirs.
#define BN_READ_ANEW(p) asm volatile("" : "+r"(p))

static inline __m256i broadcast_quad(const int8_t* p) { return _mm256_set1_epi32(load_quad(p)); }
static inline __m256i load_vector(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline __m256i load_codes(const uint8_t* p) {
  __m256i v = load_vector(p);
  asm("" : "+x"(v));  // keeps it in its register: g++ 12 would read the memory again in each use
  return v;
}
static inline __m256i load_values(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline void store_sums(int32_t* p, __m256i sums) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), sums); }
template <int kLevel>
static inline void prefetch_line(const uint8_t* p) {
  __builtin_prefetch(p, 0, kLevel);
}
// Weights stream from memory; the hardware's prefetcher stops at the end of each page.
constexpr int64_t kPrefetch_bytes = 4096;

// Ends the use of a sum's old value: g++ 12 would otherwise give it a second register, and spill others.
#define BN_STAY(a) asm volatile("" : "+x"(a))

// Sums of N vectors' products with the fields of bytes: step(i, ones, fours) adds those of step i, of which fields 1
// and 3 stay unshifted and count four times. So do the totals.
template <int N, int kProducts, class Step>
static inline void sum_fields(int64_t n_steps, const Step& step, __m256i* total) {
  constexpr int64_t kSteps = kBlockSteps / kProducts;
  BN_UNROLL for (int k = 0; k < N; ++k) total[k] = _mm256_setzero_si256();
  for (int64_t i = 0; i < n_steps;) {
    __m256i ones[N], fours[N];
    BN_UNROLL for (int k = 0; k < N; ++k) ones[k] = _mm256_setzero_si256();
    const int64_t ones_end = n_steps - i > 4 * kSteps ? i + 4 * kSteps : n_steps;
    while (i < ones_end) {
      BN_UNROLL for (int k = 0; k < N; ++k) fours[k] = _mm256_setzero_si256();
      const int64_t fours_end = ones_end - i > kSteps ? i + kSteps : ones_end;
      for (; i < fours_end; ++i) step(i, ones, fours);
      BN_UNROLL for (int k = 0; k < N; ++k) total[k] = _mm256_add_epi32(total[k], widen(fours[k]));
    }
    BN_UNROLL for (int k = 0; k < N; ++k) {
      total[k] = _mm256_add_epi32(total[k], _mm256_slli_epi32(widen(ones[k]), 2));
    }
  }
  BN_UNROLL for (int k = 0; k < N; ++k) total[k] = _mm256_srai_epi32(total[k], 2);
}

// Field by field, so that an activation is read once for all rows.
template <int kLevel>
static void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  __m256i total[4];  // eight rows each
  sum_fields<4, 1>(
      n_blocks,
      [&](int64_t block, __m256i* ones, __m256i* fours) {
        const uint8_t* p = tile + block * kBlockBytes;
        const int8_t* const x = q + block * kBlockCols;
        prefetch_line<kLevel>(p + kPrefetch_bytes);
        const __m256i x0 = broadcast_quad(x);
        BN_UNROLL for (int k = 0; k < 4; ++k) {
          ones[k] = mul_add(ones[k], _mm256_and_si256(load_vector(p + 32 * k), even), x0);
          BN_STAY(ones[k]);
        }
        BN_READ_ANEW(p);
        const __m256i x1 = broadcast_quad(x + 4);
        BN_UNROLL for (int k = 0; k < 4; ++k) {
          fours[k] = mul_add(fours[k], _mm256_and_si256(load_vector(p + 32 * k), odd), x1);
          BN_STAY(fours[k]);
        }
        BN_READ_ANEW(p);
        prefetch_line<kLevel>(p + kPrefetch_bytes + 64);
        const __m256i x2 = broadcast_quad(x + 8), x3 = broadcast_quad(x + 12);
        BN_UNROLL for (int k = 0; k < 4; ++k) {
          const __m256i shifted = _mm256_srli_epi16(load_vector(p + 32 * k), 4);
          ones[k] = mul_add(ones[k], _mm256_and_si256(shifted, even), x2);
          fours[k] = mul_add(fours[k], _mm256_and_si256(shifted, odd), x3);
          BN_KEEP_ORDER(ones[k], fours[k]);
        }
      },
      total);
  BN_UNROLL for (int k = 0; k < 4; ++k) store_sums(sums + 8 * k, total[k]);
}

// A tile's column quads v and 4 + v: four products a row into `part`, or, with those, four sums into `total`. Shifts go
// by 16-bit lanes: what crosses from byte to byte is not among the bits that are kept.
template <int v>
static inline void add_codes(const uint8_t* block, const int8_t* q, __m256i* part, __m256i* total) {
  static_assert(4 * 2 * kSketchMaxCode * 128 < 32768, "four products fit into 16 bits");
  const __m256i code = _mm256_set1_epi8(31), high = _mm256_set1_epi8(28), low = _mm256_set1_epi8(3);
  const __m256i x = broadcast_quad(q + 4 * v), y = broadcast_quad(q + 16 + 4 * v);
  BN_READ_ANEW(block);
  BN_UNROLL for (int k = 0; k < 4; ++k) {
    const uint8_t* const vectors = block + k / 2 * (kSketchBlockBytes / 2) + k % 2 * 32;
    const __m256i bytes = load_codes(vectors + v * kVectorBytes), low_bits = load_vector(vectors + 4 * kVectorBytes);
    const __m256i joined = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(bytes, 3), high),
                                           _mm256_and_si256(_mm256_srli_epi16(low_bits, 2 * v), low));
    if constexpr (v % 2 == 0) part[k] = _mm256_setzero_si256();
    part[k] = mul_add(mul_add(part[k], _mm256_and_si256(bytes, code), x), joined, y);
    BN_STAY(part[k]);
    if constexpr (v % 2 == 1) total[k] = _mm256_add_epi32(total[k], widen(part[k]));
  }
}
// Its prefetches are spread over the work: ten at once would wait for each other, and all behind them.
template <int kLevel>
static void sketch_matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const auto prefetch_lines = [](const uint8_t* block, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) prefetch_line<kLevel>(block + kPrefetch_bytes + 64 * i);
  };
  static_assert(kSketchBlockBytes == 10 * 64);
  __m256i total[4], part[4];  // eight rows each
  BN_UNROLL for (int k = 0; k < 4; ++k) total[k] = _mm256_setzero_si256();
  for (int64_t i = 0; i < n_blocks; ++i, tile += kSketchBlockBytes, q += kSketchBlockCols) {
    prefetch_lines(tile, 0, 3);
    add_codes<0>(tile, q, part, total);
    prefetch_lines(tile, 3, 5);
    add_codes<1>(tile, q, part, total);
    prefetch_lines(tile, 5, 8);
    add_codes<2>(tile, q, part, total);
    prefetch_lines(tile, 8, 10);
    add_codes<3>(tile, q, part, total);
  }
  BN_UNROLL for (int k = 0; k < 4; ++k) store_sums(sums + 8 * k, total[k]);
}

static void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  const __m256i mask = _mm256_set1_epi8(3);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 4 * kBlockBytes) {
    for (int part = 0; part < 4; ++part) {
      const __m256i v = load_codes(tile + 32 * part);
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        const __m256i field = _mm256_and_si256(_mm256_srli_epi16(v, 2 * j), mask);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + j * kBlockBytes + 32 * part), field);
      }
    }
  }
}

// 6 tokens x 16 rows of sums fill 12 registers; a tile's two halves follow each other.
static void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  constexpr int kSums = 2 * int(kMatmulTokens);
  for (int64_t i = 0; i < kMatmulTokens * kTileRows; ++i) sums[i] = 0;
  for (int64_t quad = 0; quad < 4 * n_blocks;) {
    const int64_t end = 4 * n_blocks - quad > kCodeSteps ? quad + kCodeSteps : 4 * n_blocks;
    for (int half = 0; half < 2; ++half) {
      __m256i sum[kSums];
      BN_UNROLL for (int i = 0; i < kSums; ++i) sum[i] = _mm256_setzero_si256();
      const uint8_t* c = codes + quad * 128 + 64 * half;
      const int8_t* x = packed + quad * 4 * kMatmulTokens;
      for (int64_t i = quad; i < end; ++i, c += 128, x += 4 * kMatmulTokens) {
        const __m256i c0 = load_codes(c), c1 = load_codes(c + 32);
        BN_UNROLL for (int t = 0; t < kMatmulTokens; ++t) {
          __m256i four = broadcast_quad(x + 4 * t);
          BN_KEEP_ORDER(four, sum[2 * t]);
          sum[2 * t] = mul_add(sum[2 * t], c0, four);
          sum[2 * t + 1] = mul_add(sum[2 * t + 1], c1, four);
          BN_KEEP_ORDER(sum[2 * t], sum[2 * t + 1]);
        }
      }
      BN_UNROLL for (int i = 0; i < kSums; ++i) {
        int32_t* const out = sums + i / 2 * 32 + 16 * half + i % 2 * 8;
        store_sums(out, _mm256_add_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(out)), widen(sum[i])));
      }
    }
    quad = end;
  }
}

// N rows at once share the activations.
template <int kLevel, int N>
static inline void dot_some_rows(const RowDotArgs& a, int64_t first) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  const uint8_t *row[N], *ahead[N];
  BN_UNROLL for (int k = 0; k < N; ++k) {
    row[k] = a.rows + a.ids[first + k] * a.row_bytes;
    ahead[k] = a.rows + a.ids[first + k + kPiecesAhead] * a.row_bytes;
  }
  __m256i total[N];
  sum_fields<N, 2>(
      a.row_bytes / kVectorBytes,
      [&](int64_t i, __m256i* ones, __m256i* fours) {
        const int64_t at = kVectorBytes * i;
        BN_UNROLL for (int k = 0; k < N; ++k) prefetch_line<kLevel>(ahead[k] + at);
        BN_UNROLL for (int half = 0; half < 2; ++half) {
          BN_UNROLL for (int k = 0; k < N; ++k) {
            const int8_t* x = a.x + 4 * at + 32 * half;
            BN_READ_ANEW(x);
            const __m256i v = load_codes(row[k] + at + 32 * half), shifted = _mm256_srli_epi16(v, 4);
            ones[k] = mul_add(ones[k], _mm256_and_si256(v, even), load_values(x));
            fours[k] = mul_add(fours[k], _mm256_and_si256(v, odd), load_values(x + kVectorBytes));
            BN_KEEP_ORDER(ones[k], fours[k]);
            ones[k] = mul_add(ones[k], _mm256_and_si256(shifted, even), load_values(x + 2 * kVectorBytes));
            fours[k] = mul_add(fours[k], _mm256_and_si256(shifted, odd), load_values(x + 3 * kVectorBytes));
            BN_KEEP_ORDER(ones[k], fours[k]);
          }
        }
      },
      total);
  BN_UNROLL for (int k = 0; k < N; ++k) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total[k]), _mm256_extracti128_si256(total[k], 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    a.sums[first + k] = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }
}
template <int kLevel>
static void dot_rows(const RowDotArgs& a) {
  for (int64_t i = 0; i < a.n; i += 4) dot_some_rows<kLevel, 4>(a, i);
}

static inline void add_four(int32_t* sums, __m128i v) {
  __m128i* const out = reinterpret_cast<__m128i*>(sums);
  _mm_storeu_si128(out, _mm_add_epi32(_mm_loadu_si128(out), v));
}
// The lower or the upper halves of 32 bytes' 128-bit lanes: four columns are interleaved, a0 b0 c0 d0 a1 ..., and
// multiplied by four inputs. kColumnsAtOnce of them need no widening before the end: a quad adds 12 * 128 * 2 at most.
static_assert(kColumnsAtOnce / 4 * 3072 < 32768);
// Each of a vector's four passes asks for a quarter of the columns ahead.
template <int kLevel, bool kHigh, int kPass>
static inline void add_columns_half(const ColumnSumArgs& a, const uint8_t* bytes, int32_t* sums) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  __m256i part[2][4];  // [eight rows][field]
  BN_UNROLL for (int k = 0; k < 8; ++k) part[k / 4][k % 4] = _mm256_setzero_si256();
  for (int64_t i = 0; i < a.n; i += 4) {
    __m256i v[4];
    prefetch_line<kLevel>(bytes + a.ids[i + kPass + kPiecesAhead] * a.column_bytes);
    BN_UNROLL for (int k = 0; k < 4; ++k) { v[k] = load_codes(bytes + a.ids[i + k] * a.column_bytes); }
    const __m256i ab = kHigh ? _mm256_unpackhi_epi8(v[0], v[1]) : _mm256_unpacklo_epi8(v[0], v[1]);
    const __m256i cd = kHigh ? _mm256_unpackhi_epi8(v[2], v[3]) : _mm256_unpacklo_epi8(v[2], v[3]);
    const __m256i x = broadcast_quad(a.q + i);
    BN_UNROLL for (int k = 0; k < 2; ++k) {
      const __m256i w = k == 0 ? _mm256_unpacklo_epi16(ab, cd) : _mm256_unpackhi_epi16(ab, cd);
      const __m256i shifted = _mm256_srli_epi16(w, 4);
      part[k][0] = mul_add(part[k][0], _mm256_and_si256(w, even), x);
      part[k][1] = mul_add(part[k][1], _mm256_and_si256(w, odd), x);
      part[k][2] = mul_add(part[k][2], _mm256_and_si256(shifted, even), x);
      part[k][3] = mul_add(part[k][3], _mm256_and_si256(shifted, odd), x);
    }
  }
  BN_UNROLL for (int k = 0; k < 2; ++k) {
    BN_UNROLL for (int j = 0; j < 4; ++j) {
      const __m256i wide = _mm256_srai_epi32(widen(part[k][j]), j % 2 * 2);
      int32_t* const out = sums + j * kVectorBytes + 4 * (2 * int(kHigh) + k);
      add_four(out, _mm256_castsi256_si128(wide));
      add_four(out + 16, _mm256_extracti128_si256(wide, 1));
    }
  }
}
template <int kLevel>
static void add_columns(const ColumnSumArgs& a) {
  for (int64_t at = 0; at < a.column_bytes; at += kVectorBytes) {
    const uint8_t* const bytes = a.columns + at;
    int32_t* const sums = a.sums + 4 * at;
    add_columns_half<kLevel, false, 0>(a, bytes, sums);
    add_columns_half<kLevel, true, 1>(a, bytes, sums);
    add_columns_half<kLevel, false, 2>(a, bytes + 32, sums + 32);
    add_columns_half<kLevel, true, 3>(a, bytes + 32, sums + 32);
  }
}
