#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/avx512_intrinsics.inc.h"

// AVX-512 VBMI beside what isa_avx512vnni.cc needs: five ternary digits a byte.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"

#include "kernels/cpu/ternary_avx512.inc.h"

// For r = 0..80 the four lower digits as 2-bit fields.
struct DigitTable {
  alignas(64) uint8_t fields[128];
};
constexpr DigitTable make_digit_table() {
  DigitTable table = {};
  for (int r = 0; r < 81; ++r) {
    table.fields[r] = uint8_t(r % 3 | (r / 3 % 3) << 2 | (r / 9 % 3) << 4 | (r / 27) << 6);
  }
  return table;
}
constexpr DigitTable kDigits = make_digit_table();

// The inverse of 81 modulo 2^32: multiplying a multiple of 81 by it divides exactly.
constexpr uint32_t inverse_of_81() {
  uint32_t inverse = 81;
  for (int i = 0; i < 5; ++i) inverse *= 2 - 81 * inverse;
  return inverse;
}
static_assert(81 * inverse_of_81() == 1u);

struct Digits {
  __m512i fields;  // four digits as 2-bit fields
  __m512i top;     // 81 times the fifth
};
// A byte below 81 becomes larger when 81 is taken from it, so the minimum keeps it.
inline Digits split(__m512i bytes, __m512i low, __m512i high) {
  const __m512i step = _mm512_set1_epi8(81);
  const __m512i once = _mm512_min_epu8(bytes, _mm512_sub_epi8(bytes, step));
  const __m512i rest = _mm512_min_epu8(once, _mm512_sub_epi8(once, step));
  return {_mm512_permutex2var_epi8(low, rest, high), _mm512_sub_epi8(bytes, rest)};
}

// The fifth digit counts 81 times.
template <int kLevel>
void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  const __m512i table_low = _mm512_load_si512(kDigits.fields), table_high = _mm512_load_si512(kDigits.fields + 64);
  __m512i low[5], high[5];  // rows 0..15 and 16..31, by digit
  BN_UNROLL for (int j = 0; j < 5; ++j) low[j] = high[j] = _mm512_setzero_si512();
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, q += kBase3BlockCols) {
    prefetch_block<kLevel>(tile);
    const Digits a = split(load_once(tile), table_low, table_high);
    const Digits b = split(load_once(tile + 64), table_low, table_high);
    BN_UNROLL for (int j = 0; j < 4; ++j) {
      const __m512i x = broadcast_quad(q + 4 * j);
      low[j] = _mm512_dpbusd_epi32(low[j], _mm512_and_si512(a.fields, field[j]), x);
      high[j] = _mm512_dpbusd_epi32(high[j], _mm512_and_si512(b.fields, field[j]), x);
      BN_STAY(low[j]);
      BN_STAY(high[j]);
    }
    const __m512i x = broadcast_quad(q + 16);
    low[4] = _mm512_dpbusd_epi32(low[4], a.top, x);
    high[4] = _mm512_dpbusd_epi32(high[4], b.top, x);
    BN_STAY(low[4]);
    BN_STAY(high[4]);
  }
  const __m512i inverse = _mm512_set1_epi32(int32_t(inverse_of_81()));
  _mm512_storeu_si512(sums, _mm512_add_epi32(add_fields(low), _mm512_mullo_epi32(low[4], inverse)));
  _mm512_storeu_si512(sums + 16, _mm512_add_epi32(add_fields(high), _mm512_mullo_epi32(high[4], inverse)));
}

void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  const __m512i table_low = _mm512_load_si512(kDigits.fields), table_high = _mm512_load_si512(kDigits.fields + 64);
  const __m512i mask = _mm512_set1_epi8(3), one = _mm512_set1_epi8(1), step = _mm512_set1_epi8(81);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 5 * kBlockBytes) {
    BN_UNROLL for (int half = 0; half < 2; ++half) {
      const Digits digits = split(load_once(tile + 64 * half), table_low, table_high);
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        _mm512_storeu_si512(codes + j * kBlockBytes + 64 * half,
                            _mm512_and_si512(_mm512_srli_epi16(digits.fields, unsigned(2 * j)), mask));
      }
      // 0, 81 or 162 to 0, 1 or 2.
      const __m512i fifth =
          _mm512_add_epi8(_mm512_min_epu8(digits.top, one), _mm512_min_epu8(_mm512_subs_epu8(digits.top, step), one));
      _mm512_storeu_si512(codes + 4 * kBlockBytes + 64 * half, fifth);
    }
  }
}

// Four rows at once share the activations.
template <int kLevel>
void dot_rows(const RowDotArgs& a) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  const __m512i table_low = _mm512_load_si512(kDigits.fields), table_high = _mm512_load_si512(kDigits.fields + 64);
  const __m512i inverse = _mm512_set1_epi32(int32_t(inverse_of_81()));
  for (int64_t i = 0; i < a.n; i += 4) {
    const uint8_t *row[4], *ahead[4];
    BN_UNROLL for (int k = 0; k < 4; ++k) {
      row[k] = a.rows + a.ids[i + k] * a.row_bytes;
      ahead[k] = a.rows + a.ids[i + k + kPiecesAhead] * a.row_bytes;
    }
    const int8_t* x = a.x;
    __m512i sums[4][5];  // [row][digit]
    BN_UNROLL for (int k = 0; k < 4; ++k) { BN_UNROLL for (int j = 0; j < 5; ++j) sums[k][j] = _mm512_setzero_si512(); }
    for (int64_t at = 0; at < a.row_bytes; at += kVectorBytes, x += 5 * kVectorBytes) {
      BN_UNROLL for (int k = 0; k < 4; ++k) {
        __builtin_prefetch(ahead[k] + at, 0, kLevel);
        const Digits v = split(load_once(row[k] + at), table_low, table_high);
        BN_UNROLL for (int j = 0; j < 4; ++j) {
          sums[k][j] = _mm512_dpbusd_epi32(sums[k][j], _mm512_and_si512(v.fields, field[j]),
                                           _mm512_loadu_si512(x + j * kVectorBytes));
          BN_STAY(sums[k][j]);
        }
        sums[k][4] = _mm512_dpbusd_epi32(sums[k][4], v.top, _mm512_loadu_si512(x + 4 * kVectorBytes));
        BN_STAY(sums[k][4]);
      }
    }
    BN_UNROLL for (int k = 0; k < 4; ++k) {
      const __m512i total = _mm512_add_epi32(add_fields(sums[k]), _mm512_mullo_epi32(sums[k][4], inverse));
      a.sums[i + k] = _mm512_reduce_add_epi32(total);
    }
  }
}

// Sums of one kind of digits at a time would decode five times, so all twenty stand in registers.
template <int kLevel>
void add_columns(const ColumnSumArgs& a) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  const __m512i table_low = _mm512_load_si512(kDigits.fields), table_high = _mm512_load_si512(kDigits.fields + 64);
  const __m512i inverse = _mm512_set1_epi32(int32_t(inverse_of_81()));
  for (int64_t at = 0; at < a.column_bytes; at += kVectorBytes) {
    const uint8_t* const vectors = a.columns + at;
    __m512i sums[5][4];  // [digit][rows as interleaved]
    BN_UNROLL for (int j = 0; j < 5; ++j) { BN_UNROLL for (int k = 0; k < 4; ++k) sums[j][k] = _mm512_setzero_si512(); }
    for (int64_t i = 0; i < a.n; i += 4) {
      __m512i fields[4], tops[4];
      BN_UNROLL for (int k = 0; k < 4; ++k) {
        const uint8_t* const ahead = vectors + a.ids[i + k + kPiecesAhead] * a.column_bytes;
        __builtin_prefetch(ahead, 0, kLevel);
        const Digits v = split(load_once(vectors + a.ids[i + k] * a.column_bytes), table_low, table_high);
        fields[k] = v.fields;
        tops[k] = v.top;
      }
      interleave_columns(fields);
      interleave_columns(tops);
      const __m512i x = broadcast_quad(a.q + i);
      BN_UNROLL for (int k = 0; k < 4; ++k) {
        BN_UNROLL for (int j = 0; j < 4; ++j) {
          sums[j][k] = _mm512_dpbusd_epi32(sums[j][k], _mm512_and_si512(fields[k], field[j]), x);
          BN_STAY(sums[j][k]);
        }
        sums[4][k] = _mm512_dpbusd_epi32(sums[4][k], tops[k], x);
        BN_STAY(sums[4][k]);
      }
    }
    BN_UNROLL for (int j = 0; j < 5; ++j) {
      BN_UNROLL for (int k = 0; k < 4; ++k) {
        sums[j][k] =
            j < 4 ? _mm512_srai_epi32(sums[j][k], unsigned(2 * j % 8)) : _mm512_mullo_epi32(sums[j][k], inverse);
      }
      add_in_order(sums[j], a.sums + 5 * at + 64 * j);
    }
  }
}

}  // namespace

const TernaryKernels kAvx512VbmiDigits = {matvec_tile<kToFirstLevel>, unpack_tile, dot_rows<kToFirstLevel>,
                                          add_columns<kToFirstLevel>};
const TernaryKernels kAvx512VbmiDigitsToSecondLevel = {matvec_tile<kToSecondLevel>, unpack_tile,
                                                       dot_rows<kToSecondLevel>, add_columns<kToSecondLevel>};

}  // namespace bitnet
