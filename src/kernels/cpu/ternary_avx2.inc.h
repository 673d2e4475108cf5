// Included inside the anonymous namespace of an isa_NAME.cc with 256-bit integers, which gives before it
//   mul_add(sums, codes, x)  sums plus products of unsigned codes and int8 x, two or four of them added up in a lane,
//   widen(sums)              the same sums in 32-bit lanes, four products each,
//   kBlockSteps, kCodeSteps  how many steps of the loops below sums stay exact before they want widen().

constexpr int64_t kMatmulTokens = 6;

// Ends a step: g++ 12 would otherwise start the loads of all steps first and spill the sums that they displace.
#define BN_KEEP_ORDER(a, b) asm volatile("" : "+x"(a), "+x"(b))

static inline __m256i broadcast_quad(const int8_t* p) { return _mm256_set1_epi32(load_quad(p)); }
static inline __m256i load_codes(const uint8_t* p) {
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
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

// Sums of products with the fields of bytes. Fields 1 and 3 stay unshifted and count four times, which is taken back
// once at the end.
struct Sums {
  __m256i ones, fours;

  inline void clear() { ones = fours = _mm256_setzero_si256(); }
  // `x` gives the activations that meet field j.
  template <class X>
  inline void add(__m256i v, const X& x) {
    const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c), shifted = _mm256_srli_epi16(v, 4);
    ones = mul_add(ones, _mm256_and_si256(v, even), x(0));
    fours = mul_add(fours, _mm256_and_si256(v, odd), x(1));
    BN_KEEP_ORDER(ones, fours);
    ones = mul_add(ones, _mm256_and_si256(shifted, even), x(2));
    fours = mul_add(fours, _mm256_and_si256(shifted, odd), x(3));
    BN_KEEP_ORDER(ones, fours);
  }
  inline void add_wide(const Sums& sums) {
    ones = _mm256_add_epi32(ones, widen(sums.ones));
    fours = _mm256_add_epi32(fours, widen(sums.fours));
  }
  inline __m256i total() const { return _mm256_add_epi32(ones, _mm256_srai_epi32(fours, 2)); }
};

template <int kLevel>
static void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  Sums total[4];  // eight rows each
  BN_UNROLL for (int i = 0; i < 4; ++i) total[i].clear();
  for (int64_t block = 0; block < n_blocks;) {
    const int64_t end = n_blocks - block > kBlockSteps ? block + kBlockSteps : n_blocks;
    Sums part[4];
    BN_UNROLL for (int i = 0; i < 4; ++i) part[i].clear();
    for (; block < end; ++block, tile += kBlockBytes, q += kBlockCols) {
      prefetch_line<kLevel>(tile + kPrefetch_bytes);
      prefetch_line<kLevel>(tile + kPrefetch_bytes + 64);
      BN_UNROLL for (int i = 0; i < 4; ++i) {
        const int8_t* x = q;
        asm volatile("" : "+r"(x));  // read anew each time: fewer registers, and all sums stay in theirs
        part[i].add(load_codes(tile + 32 * i), [&](int j) { return broadcast_quad(x + 4 * j); });
      }
    }
    BN_UNROLL for (int i = 0; i < 4; ++i) total[i].add_wide(part[i]);
  }
  BN_UNROLL for (int i = 0; i < 4; ++i) store_sums(sums + 8 * i, total[i].total());
}

// Eight rows of a tile of upper codes with column quads v and 4 + v. Shifts go by 16-bit lanes: what crosses from byte
// to byte is not among the bits that are kept.
template <int v>
static inline __m256i add_codes(__m256i sums, __m256i bytes, __m256i low_bits, const int8_t* q) {
  const __m256i first = _mm256_and_si256(bytes, _mm256_set1_epi8(31));
  const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(bytes, 3), _mm256_set1_epi8(28));
  const __m256i lower = _mm256_and_si256(_mm256_srli_epi16(low_bits, 2 * v), _mm256_set1_epi8(3));
  sums = mul_add(sums, first, broadcast_quad(q + 4 * v));
  sums = mul_add(sums, _mm256_or_si256(upper, lower), broadcast_quad(q + 16 + 4 * v));
  return sums;
}
template <int kLevel>
static void sketch_matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  static_assert(4 * 2 * kSketchMaxCode * 128 < 32768, "four products fit into 16 bits");
  __m256i total[4];  // eight rows each
  BN_UNROLL for (int i = 0; i < 4; ++i) total[i] = _mm256_setzero_si256();
  for (int64_t block = 0; block < n_blocks; ++block, tile += kSketchBlockBytes, q += kSketchBlockCols) {
    for (int64_t line = 0; line < kSketchBlockBytes; line += 64) prefetch_line<kLevel>(tile + kPrefetch_bytes + line);
    BN_UNROLL for (int i = 0; i < 4; ++i) {
      const uint8_t* const vectors = tile + i / 2 * (kSketchBlockBytes / 2) + i % 2 * 32;
      const int8_t* x = q;
      asm volatile("" : "+r"(x));  // read anew each time, as in matvec_tile
      const __m256i low_bits = load_codes(vectors + 4 * kVectorBytes);
      __m256i a = add_codes<0>(_mm256_setzero_si256(), load_codes(vectors), low_bits, x);
      a = add_codes<1>(a, load_codes(vectors + kVectorBytes), low_bits, x);
      __m256i b = add_codes<2>(_mm256_setzero_si256(), load_codes(vectors + 2 * kVectorBytes), low_bits, x);
      b = add_codes<3>(b, load_codes(vectors + 3 * kVectorBytes), low_bits, x);
      total[i] = _mm256_add_epi32(total[i], _mm256_add_epi32(widen(a), widen(b)));
      asm volatile("" : "+x"(total[i]));  // as BN_KEEP_ORDER
    }
  }
  BN_UNROLL for (int i = 0; i < 4; ++i) store_sums(sums + 8 * i, total[i]);
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
  const uint8_t *row[N], *ahead[N];
  Sums total[N];
  BN_UNROLL for (int k = 0; k < N; ++k) {
    total[k].clear();
    row[k] = a.rows + a.ids[first + k] * a.row_bytes;
    ahead[k] = a.rows + a.ids[first + k + kPiecesAhead] * a.row_bytes;
  }
  for (int64_t at = 0; at < a.row_bytes;) {
    const int64_t end = a.row_bytes - at > 32 * kBlockSteps ? at + 32 * kBlockSteps : a.row_bytes;
    Sums part[N];
    BN_UNROLL for (int k = 0; k < N; ++k) part[k].clear();
    for (; at < end; at += 32) {
      const int8_t* const x = a.x + at / kVectorBytes * 4 * kVectorBytes + at % kVectorBytes;
      BN_UNROLL for (int k = 0; k < N; ++k) {
        if (at % kVectorBytes == 0) prefetch_line<kLevel>(ahead[k] + at);
        part[k].add(load_codes(row[k] + at), [&](int j) { return load_values(x + j * kVectorBytes); });
      }
    }
    BN_UNROLL for (int k = 0; k < N; ++k) total[k].add_wide(part[k]);
  }
  BN_UNROLL for (int k = 0; k < N; ++k) {
    const __m256i sums = total[k].total();
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
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
