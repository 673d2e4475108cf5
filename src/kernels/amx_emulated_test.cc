#include "kernels/test_support.h"

#include <array>

// The AMX kernels with their instructions in plain C++, so that machines without AMX test them too.
namespace bitnet {
namespace {

// As the Intel Software Developer's Manual defines the instructions; where it has #UD, a test fails.
struct Tile {
  std::array<std::array<uint8_t, 64>, 16> rows;
};
struct TileUnit {
  bool configured = false;
  std::array<int64_t, 8> n_rows, row_bytes;
  std::array<Tile, 8> tiles;

  bool usable(int i) const {
    if (configured && n_rows[size_t(i)] > 0 && row_bytes[size_t(i)] > 0) return true;
    ADD_FAILURE() << "tile " << i << " has no shape";
    return false;
  }
};
thread_local TileUnit unit;

void _tile_loadconfig(const void* config) {
  const uint8_t* const bytes = static_cast<const uint8_t*>(config);
  EXPECT_EQ(bytes[0], 1) << "palette";
  for (int i = 1; i < 16; ++i) EXPECT_EQ(bytes[i], 0) << "reserved";
  for (size_t i = 0; i < 16; ++i) {
    const int64_t n_rows = bytes[48 + i], row_bytes = bytes[16 + 2 * i] + 256 * bytes[17 + 2 * i];
    if (i >= 8) {
      EXPECT_EQ(n_rows + row_bytes, 0) << "there are eight tiles";
      continue;
    }
    EXPECT_LE(n_rows, 16);
    EXPECT_LE(row_bytes, 64);
    unit.n_rows[i] = n_rows;
    unit.row_bytes[i] = row_bytes;
  }
  unit.tiles = {};
  unit.configured = true;
}

void _tile_release() { unit.configured = false; }

void _tile_zero(int i) {
  if (unit.usable(i)) unit.tiles[size_t(i)] = {};
}

void _tile_loadd(int i, const void* base, int64_t stride) {
  if (!unit.usable(i)) return;
  unit.tiles[size_t(i)] = {};
  for (int64_t r = 0; r < unit.n_rows[size_t(i)]; ++r) {
    std::memcpy(unit.tiles[size_t(i)].rows[size_t(r)].data(), static_cast<const uint8_t*>(base) + r * stride,
                size_t(unit.row_bytes[size_t(i)]));
  }
}

void _tile_stored(int i, void* base, int64_t stride) {
  if (!unit.usable(i)) return;
  for (int64_t r = 0; r < unit.n_rows[size_t(i)]; ++r) {
    std::memcpy(static_cast<uint8_t*>(base) + r * stride, unit.tiles[size_t(i)].rows[size_t(r)].data(),
                size_t(unit.row_bytes[size_t(i)]));
  }
}

// Signed bytes of a with unsigned ones of b.
void _tile_dpbsud(int sums, int a, int b) {
  if (!unit.usable(sums) || !unit.usable(a) || !unit.usable(b)) return;
  const auto s = size_t(sums), left = size_t(a), right = size_t(b);
  EXPECT_TRUE(s != left && s != right && left != right);
  EXPECT_EQ(unit.n_rows[s], unit.n_rows[left]);
  EXPECT_EQ(unit.row_bytes[s], unit.row_bytes[right]);
  EXPECT_EQ(unit.row_bytes[left], 4 * unit.n_rows[right]);
  for (size_t m = 0; m < size_t(unit.n_rows[s]); ++m) {
    std::array<int32_t, 16> row;
    std::memcpy(row.data(), unit.tiles[s].rows[m].data(), sizeof row);
    for (size_t k = 0; k < size_t(unit.row_bytes[left]); ++k) {
      const int x = int8_t(unit.tiles[left].rows[m][k]);
      const auto& quads = unit.tiles[right].rows[k / 4];
      for (size_t n = 0; n < size_t(unit.row_bytes[s]) / 4; ++n) row[n] += x * quads[4 * n + k % 4];
    }
    std::memcpy(unit.tiles[s].rows[m].data(), row.data(), sizeof row);
  }
}

#include "kernels/cpu/amx_product.inc.h"

TEST(AmxEmulated, CodesBehindTheLastBlockCountNothing) {
  const CounterRng rng(3);
  for (int64_t n_blocks = 1; n_blocks <= 9; ++n_blocks) {
    const int64_t n_cols = n_blocks * kBlockCols, n_padded = (n_cols + kStepCols - 1) / kStepCols * kStepCols;
    for (const int64_t n_tokens : {1, 16, 31, 32}) {
      std::vector<int8_t> q(size_t(n_tokens * n_padded)), packed(size_t(kMatmulTokens * n_padded), 77);
      for (int64_t i = 0; i < n_tokens * n_padded; ++i) {
        if (i % n_padded < n_cols) q[size_t(i)] = int8_t(rng.bits(uint64_t(i)) % 256);
      }
      std::vector<uint8_t> codes(size_t(n_padded * kTileRows), 255);
      for (int64_t i = 0; i < n_cols * kTileRows; ++i) codes[size_t(i)] = uint8_t(rng.bits(uint64_t(i)) % 4);
      std::vector<int32_t> sums(kMatmulTokens * kTileRows, -1);
      pack_tokens(q.data(), n_padded, n_tokens, n_padded / kBlockCols, packed.data());
      matmul_tile(codes.data(), packed.data(), n_blocks, n_tokens, sums.data());
      EXPECT_FALSE(unit.configured);
      for (int64_t i = 0; i < kMatmulTokens * kTileRows; ++i) {
        const int64_t t = i / kTileRows, row = i % kTileRows;
        int32_t want = 0;
        for (int64_t col = 0; t < n_tokens && col < n_cols; ++col) {
          want += codes[size_t((col / 4 * kTileRows + row) * 4 + col % 4)] * q[size_t(t * n_padded + col)];
        }
        ASSERT_EQ(sums[size_t(i)], want) << n_blocks << " blocks, token " << t << " of " << n_tokens << ", row " << row;
      }
    }
  }
}

}  // namespace

std::vector<const CpuKernels*> emulated_cpu_kernels() {
#if defined(__x86_64__)
  static const CpuKernels emulated = with_matmul("amx_emulated", *usable_cpu_kernels().front(),
                                                 {kMatmulTokens, kMinTokens, pack_tokens, matmul_tile, kSketchMaxCode});
  if (emulated.fields.unpack_tile != nullptr) return {&emulated};
#endif
  return {};
}

}  // namespace bitnet
