// Included inside the anonymous namespace of an isa_NAME.cc after ternary_avx2.inc.h: products with rows and columns.
// VPMADDUBSW as in isa_avx2.cc: an instruction gives at most 2 * 3 * 128 = 768 for an even field of a byte and 3072 for
// an odd one, which stays unshifted.

static inline __m256i sum_pairs(__m256i words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

// Two products of either kind a vector: 5 * 6144 stays within 16 bits.
constexpr int64_t kRowVectorsPerWidening = 5;

static inline int32_t dot_row(const uint8_t* row, int64_t n_bytes, const uint8_t* ahead, const int8_t* x) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  __m256i ones = _mm256_setzero_si256(), fours = ones;
  for (int64_t at = 0; at < n_bytes;) {
    __m256i ones16 = _mm256_setzero_si256(), fours16 = ones16;
    for (int64_t i = 0; i < kRowVectorsPerWidening && at < n_bytes; ++i, at += 32) {
      const int8_t* const q = x + at / kVectorBytes * 4 * kVectorBytes + at % kVectorBytes;
      if (at % kVectorBytes == 0) _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T0);
      const __m256i v = load_codes(row + at), shifted = _mm256_srli_epi16(v, 4);
      const __m256i p0 = _mm256_maddubs_epi16(_mm256_and_si256(v, even), load_values(q));
      const __m256i p1 = _mm256_maddubs_epi16(_mm256_and_si256(v, odd), load_values(q + kVectorBytes));
      const __m256i p2 = _mm256_maddubs_epi16(_mm256_and_si256(shifted, even), load_values(q + 2 * kVectorBytes));
      const __m256i p3 = _mm256_maddubs_epi16(_mm256_and_si256(shifted, odd), load_values(q + 3 * kVectorBytes));
      ones16 = _mm256_add_epi16(ones16, _mm256_add_epi16(p0, p2));
      fours16 = _mm256_add_epi16(fours16, _mm256_add_epi16(p1, p3));
    }
    ones = _mm256_add_epi32(ones, sum_pairs(ones16));
    fours = _mm256_add_epi32(fours, sum_pairs(fours16));
  }
  const __m256i sums = _mm256_add_epi32(ones, _mm256_srai_epi32(fours, 2));
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static void dot_rows(const RowDotArgs& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const uint8_t* const ahead = a.rows + a.ids[i + kPiecesAhead] * a.row_bytes;
    a.sums[i] = dot_row(a.rows + a.ids[i] * a.row_bytes, a.row_bytes, ahead, a.x);
  }
}

static inline void add_four(int32_t* sums, __m128i v) {
  __m128i* const out = reinterpret_cast<__m128i*>(sums);
  _mm_storeu_si128(out, _mm_add_epi32(_mm_loadu_si128(out), v));
}

// The lower or the upper halves of 32 bytes' 128-bit lanes: four columns are interleaved, a0 b0 c0 d0 a1 ..., and
// multiplied by four inputs. 32 columns stay within 16 bits: 8 * 3072.
template <bool kHigh>
static inline void add_columns_half(const ColumnSumArgs& a, const uint8_t* bytes, int32_t* sums) {
  const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c);
  __m256i part[2][4];  // [eight rows][field]
  BN_UNROLL for (int k = 0; k < 8; ++k) part[k / 4][k % 4] = _mm256_setzero_si256();
  for (int64_t i = 0; i < a.n; i += 4) {
    __m256i v[4];
    BN_UNROLL for (int k = 0; k < 4; ++k) v[k] = load_codes(bytes + a.ids[i + k] * a.column_bytes);
    const __m256i ab = kHigh ? _mm256_unpackhi_epi8(v[0], v[1]) : _mm256_unpacklo_epi8(v[0], v[1]);
    const __m256i cd = kHigh ? _mm256_unpackhi_epi8(v[2], v[3]) : _mm256_unpacklo_epi8(v[2], v[3]);
    const __m256i x = broadcast_quad(a.q + i);
    BN_UNROLL for (int k = 0; k < 2; ++k) {
      const __m256i w = k == 0 ? _mm256_unpacklo_epi16(ab, cd) : _mm256_unpackhi_epi16(ab, cd);
      const __m256i shifted = _mm256_srli_epi16(w, 4);
      part[k][0] = _mm256_add_epi16(part[k][0], _mm256_maddubs_epi16(_mm256_and_si256(w, even), x));
      part[k][1] = _mm256_add_epi16(part[k][1], _mm256_maddubs_epi16(_mm256_and_si256(w, odd), x));
      part[k][2] = _mm256_add_epi16(part[k][2], _mm256_maddubs_epi16(_mm256_and_si256(shifted, even), x));
      part[k][3] = _mm256_add_epi16(part[k][3], _mm256_maddubs_epi16(_mm256_and_si256(shifted, odd), x));
    }
  }
  BN_UNROLL for (int k = 0; k < 2; ++k) {
    BN_UNROLL for (int j = 0; j < 4; ++j) {
      const __m256i wide = _mm256_srai_epi32(sum_pairs(part[k][j]), j % 2 * 2);
      int32_t* const out = sums + j * kVectorBytes + 4 * (2 * int(kHigh) + k);
      add_four(out, _mm256_castsi256_si128(wide));
      add_four(out + 16, _mm256_extracti128_si256(wide, 1));
    }
  }
}

static void add_columns(const ColumnSumArgs& a) {
  for (int64_t at = 0; at < a.column_bytes; at += kVectorBytes) {
    for (int64_t i = 0; i < a.n; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(a.columns + a.ids[i + kPiecesAhead] * a.column_bytes + at),
                   _MM_HINT_T0);
    }
    for (int64_t half = 0; half < 2; ++half) {
      const uint8_t* const bytes = a.columns + at + 32 * half;
      add_columns_half<false>(a, bytes, a.sums + 4 * at + 32 * half);
      add_columns_half<true>(a, bytes, a.sums + 4 * at + 32 * half);
    }
  }
}
