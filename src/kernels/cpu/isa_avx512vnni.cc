#include "kernels/cpu/kernel_table.h"
#include "kernels/float_constants.h"

#include "kernels/cpu/avx512_intrinsics.inc.h"

// AVX-512 F, BW, VL, DQ and VNNI.
namespace bitnet {
namespace {

#include "kernels/cpu/isa_prologue.inc.h"
#include "kernels/cpu/vec_avx512.inc.h"

#include "kernels/cpu/float_ops.inc.h"

#include "kernels/cpu/dot_ops.inc.h"

#include "kernels/cpu/tile_ops.inc.h"

#include "kernels/cpu/training_ops.inc.h"

constexpr int64_t kMatmulTokens = 12;
#include "kernels/cpu/ternary_quads.inc.h"

#include "kernels/cpu/ternary_avx512.inc.h"

template <int kLevel>
void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  __m512i low[4], high[4];  // rows 0..15 and 16..31, by field
  BN_UNROLL for (int j = 0; j < 4; ++j) low[j] = high[j] = _mm512_setzero_si512();
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, q += kBlockCols) {
    prefetch_block<kLevel>(tile);
    const __m512i a = load_once(tile), b = load_once(tile + 64);
    BN_UNROLL for (int j = 0; j < 4; ++j) {
      const __m512i x = broadcast_quad(q + 4 * j);
      low[j] = _mm512_dpbusd_epi32(low[j], _mm512_and_si512(a, field[j]), x);
      high[j] = _mm512_dpbusd_epi32(high[j], _mm512_and_si512(b, field[j]), x);
      BN_STAY(low[j]);
      BN_STAY(high[j]);
    }
  }
  _mm512_storeu_si512(sums, add_fields(low));
  _mm512_storeu_si512(sums + 16, add_fields(high));
}

void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  const __m512i mask = _mm512_set1_epi8(3);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 4 * kBlockBytes) {
    BN_UNROLL for (int half = 0; half < 2; ++half) {
      const __m512i v = load_once(tile + 64 * half);
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        _mm512_storeu_si512(codes + j * kBlockBytes + 64 * half,
                            _mm512_and_si512(_mm512_srli_epi16(v, unsigned(2 * j)), mask));
      }
    }
  }
}

// Four rows at once share the activations.
template <int kLevel>
void dot_rows(const RowDotArgs& a) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  for (int64_t i = 0; i < a.n; i += 4) {
    const uint8_t *row[4], *ahead[4];
    BN_UNROLL for (int k = 0; k < 4; ++k) {
      row[k] = a.rows + a.ids[i + k] * a.row_bytes;
      ahead[k] = a.rows + a.ids[i + k + kPiecesAhead] * a.row_bytes;
    }
    const int8_t* x = a.x;
    __m512i sums[4][4];  // [row][field]
    BN_UNROLL for (int k = 0; k < 16; ++k) sums[k / 4][k % 4] = _mm512_setzero_si512();
    for (int64_t at = 0; at < a.row_bytes; at += kVectorBytes, x += 4 * kVectorBytes) {
      __m512i v[4];
      BN_UNROLL for (int k = 0; k < 4; ++k) {
        __builtin_prefetch(ahead[k] + at, 0, kLevel);
        v[k] = load_once(row[k] + at);
      }
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        const __m512i q = _mm512_loadu_si512(x + j * kVectorBytes);
        BN_UNROLL for (int k = 0; k < 4; ++k) {
          sums[k][j] = _mm512_dpbusd_epi32(sums[k][j], _mm512_and_si512(v[k], field[j]), q);
          BN_STAY(sums[k][j]);
        }
      }
    }
    BN_UNROLL for (int k = 0; k < 4; ++k) a.sums[i + k] = _mm512_reduce_add_epi32(add_fields(sums[k]));
  }
}

template <int kLevel>
void add_columns(const ColumnSumArgs& a) {
  const __m512i field[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                            _mm512_set1_epi8(int8_t(0xc0))};
  for (int64_t at = 0; at < a.column_bytes; at += kVectorBytes) {
    const uint8_t* const vectors = a.columns + at;
    __m512i sums[4][4];  // [field][rows as interleaved]
    BN_UNROLL for (int k = 0; k < 16; ++k) sums[k / 4][k % 4] = _mm512_setzero_si512();
    for (int64_t i = 0; i < a.n; i += 4) {
      __m512i v[4];
      BN_UNROLL for (int k = 0; k < 4; ++k) {
        const uint8_t* const ahead = vectors + a.ids[i + k + kPiecesAhead] * a.column_bytes;
        __builtin_prefetch(ahead, 0, kLevel);
        v[k] = load_once(vectors + a.ids[i + k] * a.column_bytes);
      }
      interleave_columns(v);
      const __m512i x = broadcast_quad(a.q + i);
      BN_UNROLL for (int k = 0; k < 16; ++k) {
        sums[k / 4][k % 4] = _mm512_dpbusd_epi32(sums[k / 4][k % 4], _mm512_and_si512(v[k % 4], field[k / 4]), x);
        BN_STAY(sums[k / 4][k % 4]);
      }
    }
    BN_UNROLL for (int j = 0; j < 4; ++j) {
      BN_UNROLL for (int k = 0; k < 4; ++k) sums[j][k] = _mm512_srai_epi32(sums[j][k], unsigned(2 * j));
      add_in_order(sums[j], a.sums + 4 * at + 64 * j);
    }
  }
}

// 16 rows of a tile of upper codes with column quads v and 4 + v. Shifts go by 16-bit lanes: what crosses from byte to
// byte is not among the bits that are kept.
template <int v>
inline void add_codes(__m512i* sums, __m512i bytes, __m512i low_bits, const int8_t* q) {
  constexpr int kSelect = 0xca;  // a ? b : c
  const __m512i code = _mm512_set1_epi8(31), low = _mm512_set1_epi8(3);
  const __m512i joined =
      _mm512_ternarylogic_epi32(low, _mm512_srli_epi16(low_bits, 2 * v), _mm512_srli_epi16(bytes, 3), kSelect);
  sums[0] = _mm512_dpbusd_epi32(sums[0], _mm512_and_si512(bytes, code), broadcast_quad(q + 4 * v));
  sums[1] = _mm512_dpbusd_epi32(sums[1], _mm512_and_si512(joined, code), broadcast_quad(q + 16 + 4 * v));
  BN_STAY(sums[0]);
  BN_STAY(sums[1]);
}
template <int kLevel>
void sketch_matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  __m512i total[2][2];  // [16 rows][even and odd quads]
  BN_UNROLL for (int i = 0; i < 4; ++i) total[i / 2][i % 2] = _mm512_setzero_si512();
  for (int64_t block = 0; block < n_blocks; ++block, tile += kSketchBlockBytes, q += kSketchBlockCols) {
    for (int64_t line = 0; line < kSketchBlockBytes; line += 2 * 64) prefetch_block<kLevel>(tile + line);
    BN_UNROLL for (int group = 0; group < 2; ++group) {
      const uint8_t* const vectors = tile + group * (kSketchBlockBytes / 2);
      const __m512i low_bits = load_once(vectors + 4 * kVectorBytes);
      add_codes<0>(total[group], load_once(vectors), low_bits, q);
      add_codes<1>(total[group], load_once(vectors + kVectorBytes), low_bits, q);
      add_codes<2>(total[group], load_once(vectors + 2 * kVectorBytes), low_bits, q);
      add_codes<3>(total[group], load_once(vectors + 3 * kVectorBytes), low_bits, q);
    }
  }
  BN_UNROLL for (int group = 0; group < 2; ++group) {
    _mm512_storeu_si512(sums + 16 * group, _mm512_add_epi32(total[group][0], total[group][1]));
  }
}

// N tokens x 32 rows, in 24 registers at most.
template <int N>
void matmul_tokens(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int32_t* sums) {
  __m512i low[N], high[N];
  BN_UNROLL for (int t = 0; t < N; ++t) low[t] = high[t] = _mm512_setzero_si512();
  for (int64_t quad = 0; quad < 4 * n_blocks; ++quad, codes += 128, packed += 4 * kMatmulTokens) {
    const __m512i a = load_once(codes), b = load_once(codes + 64);
    BN_UNROLL for (int t = 0; t < N; ++t) {
      __m512i x = broadcast_quad(packed + 4 * t);
      asm("" : "+v"(x));
      low[t] = _mm512_dpbusd_epi32(low[t], a, x);
      high[t] = _mm512_dpbusd_epi32(high[t], b, x);
    }
  }
  BN_UNROLL for (int t = 0; t < N; ++t) {
    _mm512_storeu_si512(sums + kTileRows * t, low[t]);
    _mm512_storeu_si512(sums + kTileRows * t + 16, high[t]);
  }
}
void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t n_tokens, int32_t* sums) {
  static_assert(kMatmulTokens == 12);
  const auto run = n_tokens <= 4 ? matmul_tokens<4> : n_tokens <= 8 ? matmul_tokens<8> : matmul_tokens<12>;
  run(codes, packed, n_blocks, sums);
}

#include "kernels/cpu/streamed.inc.h"

}  // namespace

const CpuKernels kAvx512VnniKernels = {
    "avx512vnni",
    fields<kToFirstLevel>(),
    {kMatmulTokens, 4, pack_tokens, matmul_tile, kSketchMaxCode},
    sketch<kToFirstLevel>(),
    &kAvx2Codecs,
#include "kernels/cpu/table.inc.h"
};
const StreamedKernels kAvx512VnniToSecondLevel = {fields<kToSecondLevel>(), sketch<kToSecondLevel>()};

}  // namespace bitnet
