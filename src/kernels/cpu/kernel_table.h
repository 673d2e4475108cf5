#pragma once

#include "kernels/kv_tiles.h"
#include "quant/ternary_codecs.h"

#include <cstddef>
#include <cstdint>

// What an instruction set provides: one plain table of functions, filled in isa_NAME.cc. These headers and the
// isa_NAME.cc files include no library header, because a function compiled for a newer processor must never replace a
// baseline one at link time (scripts/check_isa_object.sh). docs/add-a-kernel.md walks through writing one.
namespace bitnet {

// Ternary weights in memory, the same for every instruction set: tiles of 32 rows, each one linear stream of blocks of
// 16 columns: [row tile][column block][16-row group g: 2][row lane: 16][byte b: 4]. Bits 2j, 2j + 1 of byte b hold the
// code (w + 1) of column 4j + b of the block. Rows and columns are padded with code 1; activations there are zero.
constexpr int64_t kTileRows = 32;
constexpr int64_t kBlockCols = 16;
constexpr int64_t kBlockBytes = kTileRows * kBlockCols / 4;
// Where decoding five ternary digits a byte costs less than reading two bits a weight, blocks of the same size hold 20
// columns: [row tile][column block][16-row group g: 2][row lane: 16][byte b: 4], byte b = sum over j of 3^j times the
// code of column 4j + b, j = 0..4.
constexpr int64_t kBase3BlockCols = 20;
// A matrix of which a product often needs a part lies in one of two other ways, with the same n = 4 fields or 5 digits
// a byte, padded to whole vectors of 64 bytes:
// - some rows: the words of a tile's blocks, row after row: [row][column block][byte b: 4], zeros behind;
// - some columns: [column][vector v][byte b: 64], field j of byte b is row 64 (n v + j) + b.
constexpr int64_t kVectorBytes = 64;
// The upper codes of a coarse copy of a head (head_sketch.h), 0..31, lie in tiles of 32 rows too: blocks of 32 columns
// [16-row group g: 2][vector v: 5][row lane: 16][byte b: 4]. Vector v = 0..3 has the code of column 4v + b in the lower
// five bits of byte b and the upper three bits of that of column 16 + 4v + b above them; bits 2v, 2v + 1 of byte b of
// vector 4 are the lower two bits of the latter.
constexpr int64_t kSketchBlockCols = 32;
constexpr int64_t kSketchBlockBytes = kTileRows * kSketchBlockCols * 5 / 8;
constexpr uint8_t kSketchMaxCode = 31;
// With codes unshifted (up to 3 << 6) and |q| <= 128, four products a block and lane stay within int32 up to here.
constexpr int64_t kMaxTernaryCols = int64_t{1} << 18;

// The first kCacheTypes are also types of the key/value cache.
enum class WeightType : uint8_t { kF32, kF16, kQ8_0, kBF16, kQ6_K, kQ4_0, kQ4_K };
constexpr int kWeightTypes = 7, kCacheTypes = 3;

// out[j * out_stride + r] = dot(row r, x + j * x_stride) (numerics.md 4), every row with every vector.
struct DotArgs {
  const uint8_t* rows;  // of one WeightType, row_bytes apart
  int64_t row_bytes;
  int64_t n_rows;
  const float* x;
  int64_t x_stride;
  int64_t n_x;
  int64_t n_cols;
  float* out;
  int64_t out_stride;
};

// out[j * out_stride + d] += sum over t in order of weights[j * weights_stride + t] * values[t][d].
struct WeightedSumArgs {
  const uint8_t* values;  // [n_values, n_cols] of a cache type, row_bytes apart
  int64_t row_bytes;
  int64_t n_values;
  int64_t n_cols;
  const float* weights;
  int64_t weights_stride;
  int64_t n_out;
  float* out;
  int64_t out_stride;
};

// A head's query for a tiled cache lies where head_dim floats were: int8 codes [head_dim], then this.
struct QueryScale {
  float factor;  // of a sum of products with codes, times the key's scale
  int32_t sum;   // of the codes
};
// What a query's softmax over one tile becomes, in the place of its kTilePositions scores.
struct TileWeights {
  int8_t codes[kTilePositions];  // 0..127, 0 where the query does not see
  float factor;                  // of a sum of products with the codes
  int32_t sum;                   // of the codes
};
static_assert(sizeof(TileWeights) <= kTilePositions * sizeof(float));

// scores[j * scores_stride + t] = product of query j with key t, for all positions of n_tiles tiles.
struct KeyScoreArgs {
  const uint8_t* tiles;
  int64_t tile_bytes;
  int64_t n_tiles;
  const float* queries;  // QueryScale and its codes, `stride` floats apart
  int64_t stride;
  int64_t n_queries;
  int64_t head_dim;
  float* scores;
  int64_t scores_stride;
};

// out[j * stride + d] = sum over the tiles in order, from +0, of TileWeights j with the values of dimension d; for
// parts of kTileDims dimensions (two times 16 neighbouring ones).
struct TileSumArgs {
  const uint8_t* tiles;
  int64_t tile_bytes;
  int64_t n_tiles;
  const float* weights;  // TileWeights, one every kTilePositions floats
  int64_t weights_stride;
  int64_t n_queries;
  int64_t head_dim;
  int64_t first_part, end_part;
  float* out;
  int64_t stride;
};

// Keys and values of 8 or of 4 bits.
struct TileKernels {
  // Into position `at` of a tile.
  void (*store_key)(const float* x, int64_t head_dim, int64_t at, uint8_t* tile);
  void (*store_value)(const float* x, int64_t head_dim, int64_t at, uint8_t* tile);
  void (*score_keys)(const KeyScoreArgs& args);
  void (*sum_values)(const TileSumArgs& args);
};

// Rows or columns that follow those at work in a list and are fetched meanwhile: as many as hide memory's latency.
constexpr int64_t kPiecesAhead = 32;

// sums[i] = sum(code * q) of row ids[i].
struct RowDotArgs {
  const uint8_t* rows;
  int64_t row_bytes;
  const int32_t* ids;  // [n + kPiecesAhead], ascending
  int64_t n;           // a multiple of 4
  const int8_t* x;     // q in the rows' order: [vector][field or digit j][lane: 16][4]
  int32_t* sums;
};

// sums[row] += sum over i of q[i] * (code of that row in column ids[i]), for whole vectors of rows.
struct ColumnSumArgs {
  const uint8_t* columns;
  int64_t column_bytes;
  const int32_t* ids;  // [n + kPiecesAhead], ascending
  const int8_t* q;     // [n]
  int64_t n;           // a multiple of 4, at most kColumnsAtOnce
  int32_t* sums;
};
constexpr int64_t kColumnsAtOnce = 32;

// Ternary weights, int8 activations, with 2-bit fields or five ternary digits a byte. Fields are exact for any codes, 3
// included (the lower codes of head_sketch.h); digits are 0..2.
struct TernaryKernels {
  // sums[r] = sum(code * q) over n_blocks blocks of one tile, r = 0..31.
  void (*matvec_tile)(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums);
  // For MatmulKernels: 128 bytes for each column quad of a block, in the order of their matmul_tile. Null without them.
  void (*unpack_tile)(const uint8_t* tile, int64_t n_blocks, uint8_t* codes);
  // Some rows or some columns of a matrix.
  void (*dot_rows)(const RowDotArgs& args);
  void (*add_columns)(const ColumnSumArgs& args);
};

// A tile of the upper codes of a head's coarse copy.
struct SketchKernels {
  // sums[r] = sum(code * q) over n_blocks blocks, r = 0..31.
  void (*matvec_tile)(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums);
  // As TernaryKernels::unpack_tile; null where that is.
  void (*unpack_tile)(const uint8_t* tile, int64_t n_blocks, uint8_t* codes);
};

// The kernels above ask for weights ahead of their use. Into the second level of the cache more of them can be on their
// way at once, which is worth 5 to 8% on Intel's processors; on AMD's (Zen 5) it now and then halves the speed. The
// numbers are __builtin_prefetch's.
constexpr int kToFirstLevel = 3, kToSecondLevel = 2;
struct StreamedKernels {
  TernaryKernels fields;
  SketchKernels sketch;
};

// matvec_tile for several tokens: a tile is unpacked once and the tokens are packed in groups of n_tokens, both in an
// order of the instruction set's own. For fewer than min_tokens, matvec_tile on each token is faster. All of it 0 and
// null where that is always so.
struct MatmulKernels {
  int64_t n_tokens;
  int64_t min_tokens;
  void (*pack_tokens)(const int8_t* q, int64_t stride, int64_t n_tokens, int64_t n_blocks, int8_t* packed);
  // sums [MatmulKernels::n_tokens, 32], exact with codes up to max_code. Tokens beyond this n_tokens count as zeros or
  // are left out. May read up to whole 64 columns, where activations are zero and codes anything.
  void (*matmul_tile)(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t n_tokens, int32_t* sums);
  uint8_t max_code;  // 3 at least
};

// Products of a training step: one tile of c = a b, kProductRows x kProductCols, from panels that hold these rows and
// columns side by side. Columns are a vector's lanes and each sum goes in order of k, so every instruction set gives
// the same bits.
constexpr int64_t kProductRows = 12, kProductCols = 32;

// g = gradient * factor, m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, p = p keep - rate (m / (sqrt(v)
// root + eps)): AdamW with its bias corrections in rate and root.
struct AdamwArgs {
  const float* gradients;
  int64_t n;
  float factor, beta1, beta2, eps, keep, rate, root;
  float *m, *v, *p;
};

// What training wants beyond inference (src/train). Floats follow docs/numerics.md: nothing is fused, sums have 16
// lanes.
struct TrainingKernels {
  // c[r][j] = sum over p of a[p][r][0] * b[p][j][0] + a[p][r][1] * b[p][j][1]: exact while |c| < 2^31.
  void (*product_i16)(const int16_t* a, const int16_t* b, int64_t n_pairs, int32_t* c);
  // c[r][j] = sum over k in order of a[k * a_stride + r] * b[k * b_stride + j], from +0.
  void (*product_f32)(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, float* c);
  // out[i] = float(c[i]) * factor, added to what is there where `add`.
  void (*scale_product)(const int32_t* c, int64_t n, float factor, bool add, float* out);
  float (*absmax)(const float* x, int64_t n);
  float (*sum_squares)(const float* x, int64_t n);
  // out[i] = max(out[i], |x[i] * factor|).
  void (*column_absmax)(const float* x, float factor, int64_t n, float* out);
  // out[i] = x[i] * scale, rounded; the product is within int16.
  void (*quantize_i16)(const float* x, float scale, int64_t n, int16_t* out);
  // out[2i] = (a[i] * a_factor) * scales[i], rounded, out[2i + 1] the same of b.
  void (*quantize_pairs)(const float* a, float a_factor, const float* b, float b_factor, const float* scales, int64_t n,
                         int16_t* out);
  // out[2i] = a[i] + offset, out[2i + 1] = b[i] + offset.
  void (*widen_pairs)(const int8_t* a, const int8_t* b, int16_t offset, int64_t n, int16_t* out);
  // Of rms_norm: dx is written, or added to where `add`; dweight is added to. dx may be dy unless `add`.
  void (*rms_norm_backward)(const float* x, const float* weight, float eps, const float* dy, int64_t n, bool add,
                            float* dx, float* dweight);
  // dgate and dup from dout, which either may be.
  void (*relu2_backward)(const float* gate, const float* up, const float* dout, int64_t n, float* dgate, float* dup);
  void (*silu_backward)(const float* gate, const float* up, const float* dout, int64_t n, float* dgate, float* dup);
  // Of softmax: dp[i] = p[i] * (dp[i] - mean) * scale.
  void (*softmax_backward)(const float* p, float mean, float scale, int64_t n, float* dp);
  float (*dot)(const float* a, const float* b, int64_t n);
  // y[i] += x[i] * factor.
  void (*add_scaled)(const float* x, float factor, int64_t n, float* y);
  void (*adamw)(const AdamwArgs& args);
};

struct CpuKernels {
  const char* name;
  TernaryKernels fields;
  MatmulKernels matmul;
  SketchKernels sketch;
  const TernaryCodecs* codecs;

  // From here on cpu/*.inc.h gives everything from an F32x16.
  // out[i] = (float(sums[i] - q_sum) * inv_scale) * alpha.
  void (*scale_sums)(const int32_t* sums, int64_t n, int32_t q_sum, float inv_scale, float alpha, float* out);
  void (*dot[kWeightTypes])(const DotArgs& args);
  void (*widen[kWeightTypes])(const uint8_t* row, int64_t n_cols, float* out);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // Fills q up to stride with zeros.
  void (*quantize)(const float* x, int64_t n, int64_t stride, int8_t* q, float* inv_scale, int32_t* sum);
  void (*fake_quantize)(float* x, int64_t n);
  // One head in place: pairs (i, i + n_pairs).
  void (*rope)(float* head, const float* cos, const float* sin, int64_t n_pairs);
  // Rounds a row to the stored type; Q8_0 wants whole blocks.
  void (*narrow[kCacheTypes])(const float* x, int64_t n, uint8_t* row);
  // scores[t] = exp(scores[t] * scale - max); returns the reciprocal of their lane sum.
  float (*softmax)(float* scores, int64_t n, float scale);
  void (*weighted_sum[kCacheTypes])(const WeightedSumArgs& args);
  void (*scale)(float* x, int64_t n, float factor);
  TileKernels tiles[2];  // 8 bits, 4 bits
  void (*encode_query)(const float* x, int64_t head_dim, float* out);
  // Softmax weights of n positions, scores [n_tiles * kTilePositions], to TileWeights with the tiles' scales. Meanwhile
  // bytes [fetch_begin, fetch_end) of every tile are asked for: sum_values() is about to read them.
  void (*weigh_tiles)(float* scores, int64_t n, int64_t n_tiles, const uint8_t* tiles, int64_t tile_bytes,
                      int64_t fetch_begin, int64_t fetch_end);
  // The rotated sums of values, times a factor, back to a head's output.
  void (*finish_head)(float* x, int64_t head_dim, float factor);
  void (*gate_relu2)(const float* gate, const float* up, int64_t n, float* out);
  void (*gate_silu)(const float* gate, const float* up, int64_t n, float* out);
  void (*add)(const float* x, int64_t n, float* y);
  // u[i] = w[i] * inverse_step + 63.5, rounded, in 0..127; n a multiple of 16. upper[i] = u[i] / 4, lower[i] = u[i] %
  // 4; errors[level] = the sums of the squares of w - w~ by the upper codes and by all of u (head_sketch.h).
  void (*sketch_row)(const float* w, int64_t n, float step, float inverse_step, int8_t* upper, int8_t* lower,
                     float* errors);
  TrainingKernels training;

  const TernaryKernels* digits = nullptr;  // null: ternary weights have 2 bits
};

extern const TernaryCodecs kAvx2Codecs;
extern const TernaryCodecs kAvx512VbmiCodecs;
extern const TernaryCodecs kNeonCodecs;
extern const CpuKernels kGenericKernels;
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvxVnniKernels;
extern const CpuKernels kAvx512VnniKernels;
extern const StreamedKernels kAvx2ToSecondLevel;
extern const StreamedKernels kAvxVnniToSecondLevel;
extern const StreamedKernels kAvx512VnniToSecondLevel;
extern const TernaryKernels kAvx512VbmiDigits;
extern const TernaryKernels kAvx512VbmiDigitsToSecondLevel;
extern const MatmulKernels kAmxMatmul;
extern const CpuKernels kNeonKernels;
extern const CpuKernels kNeonDotprodKernels;
extern const CpuKernels kNeonI8mmKernels;

}  // namespace bitnet
