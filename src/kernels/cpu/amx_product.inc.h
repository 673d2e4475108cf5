// Included inside the anonymous namespace of isa_amx.cc, and of a test with the _tile_* functions as plain C++.
// 32 tokens x 32 rows: four tiles of sums, 16 tokens x 16 rows each, in the order that the caller wants. A step of 64
// columns multiplies tiles of 16 tokens x 64 columns with tiles of 16 column quads x 16 rows: codes [column quad]
// [row: 32][4] as they are, activations [64 columns][token: 32][64].
//
// A step may reach beyond the last block. Activations are zero there, so it does not matter what the codes are.

constexpr int64_t kMatmulTokens = 32;
constexpr int64_t kStepCols = 64;
// Counted in cycles for 64 columns: matvec_tile takes 32 for each token; a step takes 64 (four products of 16) to 85
// (4 KiB of operands from the second-level cache) however many tokens there are, and unpacking 40: even at 4 tokens.
// Two more pay for packing and for the sums' way through memory.
constexpr int64_t kMinTokens = 6;

// What LDTILECFG reads.
struct alignas(64) TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileShapes) == 64);
// Not on the stack: g++ 12's _tile_loadconfig tells the compiler of its first 8 bytes only.
constexpr TileShapes kShapes = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16},
};

static void pack_tokens(const int8_t* q, int64_t stride, int64_t n_tokens, int64_t n_blocks, int8_t* packed) {
  for (int64_t col = 0; col < n_blocks * kBlockCols; col += kStepCols) {
    for (int64_t t = 0; t < kMatmulTokens; ++t, packed += kStepCols) {
      if (t < n_tokens) {
        __builtin_memcpy(packed, q + t * stride + col, kStepCols);
      } else {
        __builtin_memset(packed, 0, kStepCols);
      }
    }
  }
}

static void matmul_tile(const uint8_t* codes, const int8_t* packed, int64_t n_blocks, int64_t, int32_t* sums) {
  constexpr int64_t kQuadBytes = 4 * kTileRows, kSumBytes = kTileRows * int64_t{sizeof(int32_t)};
  _tile_loadconfig(&kShapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t col = 0; col < n_blocks * kBlockCols; col += kStepCols) {
    _tile_loadd(4, packed, kStepCols);
    _tile_loadd(6, codes, kQuadBytes);
    _tile_loadd(7, codes + 64, kQuadBytes);
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_loadd(5, packed + 16 * kStepCols, kStepCols);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
    codes += kStepCols * kTileRows;
    packed += kStepCols * kMatmulTokens;
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + 16, kSumBytes);
  _tile_stored(2, sums + 16 * kTileRows, kSumBytes);
  _tile_stored(3, sums + 16 * kTileRows + 16, kSumBytes);
  _tile_release();  // else each switch of threads would save 8 KiB
}
