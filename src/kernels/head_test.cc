#include "base/copied.h"
#include "base/half.h"
#include "kernels/cpu/packing.h"
#include "kernels/test_support.h"
#include "quant/blocks.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

// The best logits through the coarse copy of a head against those of the whole product.
namespace bitnet {
namespace {

BN_EVERY_ISA(Head);

constexpr float kNotComputed = -std::numeric_limits<float>::infinity();

// A table in a stored type, whose reader counts the rows it hands out.
struct Table {
  Table(DType dtype, int64_t n_rows, int64_t n_cols, const std::vector<float>& values) {
    bytes = *quantize(dtype, values, n_rows, n_cols);
    source.dtype = dtype;
    source.n_rows = n_rows;
    source.n_cols = n_cols;
    source.read_rows = [this, row_bytes = bytes.size() / size_t(n_rows)](int64_t first, int64_t n,
                                                                         std::byte* out) -> Status {
      if (fails) return invalid_input("the file is gone");
      std::memcpy(out, bytes.data() + size_t(first) * row_bytes, size_t(n) * row_bytes);
      n_read += n;
      return ok();
    };
  }
  std::vector<std::byte> bytes;
  FloatSource source;
  std::atomic<int64_t> n_read{0};
  bool fails = false;
};

std::vector<float> all_logits(const Backend& backend, const Table& table, Floats& x) {
  ThreadPool pool(1);
  const auto matrix = *backend.prepare(table.source, pool);
  Floats out(1, table.source.n_rows);
  const LinearCall call{matrix.get(), out.view()};
  backend.linear(*make_stream(backend, 1, 1, x.view().n_cols), {&call, 1}, x.view());
  return out.values;
}

std::unique_ptr<Matrix> prepare_unsearched(const Backend& backend, Table& table) {
  ThreadPool pool(2);
  FloatSource source = table.source;
  source.use = TableUse::kHead;
  return *backend.prepare(source, pool);
}
// As it is from the second search on.
std::unique_ptr<Matrix> prepare_head(const CpuBackend& cpu, Table& table) {
  auto matrix = prepare_unsearched(cpu, table);
  for (int i = 0; i < 2; ++i) {
    Floats x(1, table.source.n_cols), out(1, table.source.n_rows);
    EXPECT_TRUE(cpu.best_logits(*make_stream(cpu, 2, 1, x.view().n_cols), *matrix, x.view(), 1, out.view()));
  }
  table.n_read = 0;
  return matrix;
}

// Every logit that is among the n_best, or equal to the least of them, has its bits; any other too or is left out.
void expect_best(const std::vector<float>& all, const std::vector<float>& found, int64_t n_best) {
  std::vector<float> sorted = all;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const float least = sorted[size_t(std::min<int64_t>(n_best, int64_t(all.size()))) - 1];
  for (size_t i = 0; i < all.size(); ++i) {
    const bool same = std::bit_cast<uint32_t>(all[i]) == std::bit_cast<uint32_t>(found[i]);
    ASSERT_TRUE(same || (found[i] == kNotComputed && all[i] < least))
        << "row " << i << ": " << found[i] << ", expected " << all[i] << ", the least of " << n_best << " is " << least;
  }
}

void expect_best(const CpuBackend& cpu, Table& table, Floats& x, const std::vector<float>& all) {
  const auto matrix = prepare_head(cpu, table);
  for (const int64_t n_best : {int64_t{1}, int64_t{5}, int64_t{40}, int64_t{256}, int64_t{257}}) {
    for (const int n_threads : {1, 2}) {
      Floats out(1, table.source.n_rows);
      ASSERT_TRUE(
          cpu.best_logits(*make_stream(cpu, n_threads, 1, x.view().n_cols), *matrix, x.view(), n_best, out.view()));
      expect_best(all, out.values, n_best);
    }
  }
}

TEST_P(Head, BestLogitsAreThoseOfTheWholeProduct) {
  struct Case {
    DType dtype;
    int64_t n_rows, n_cols;
  };
  for (const Case c : {Case{DType::kF16, 1000, 320}, Case{DType::kBF16, 515, 100}, Case{DType::kF32, 33, 7},
                       Case{DType::kQ8_0, 400, 64}, Case{DType::kQ6_K, 300, 256}, Case{DType::kF16, 31, 2560}}) {
    Table table(c.dtype, c.n_rows, c.n_cols, random_floats(c.n_rows * c.n_cols, uint64_t(c.n_cols), 0.02));
    for (const uint64_t seed : {1, 2, 3}) {
      Floats x(1, c.n_cols, seed);
      expect_best(cpu_, table, x, all_logits(reference_, table, x));
    }
  }
}

TEST_P(Head, SeveralInputsShareThePasses) {
  constexpr int64_t kRows = 500, kCols = 320, kInputs = 20;
  Table table(DType::kF16, kRows, kCols, random_floats(kRows * kCols, 1, 0.02));
  const auto matrix = prepare_head(cpu_, table);
  Floats x(kInputs, kCols, 3), out(kInputs, kRows);
  ASSERT_TRUE(cpu_.best_logits(*make_stream(cpu_, 2, kInputs, kCols), *matrix, x.view(), 5, out.view()));
  for (int64_t i = 0; i < kInputs; ++i) {
    Floats one(1, kCols);
    std::copy_n(x.view().row(i), kCols, one.values.begin());
    const float* const row = out.view().row(i);
    expect_best(all_logits(reference_, table, one), {row, row + kRows}, 5);
  }
}

// Where bounds are tight or useless: rows that hardly differ, equal rows, rows of zeros, one huge weight, denormals,
// squares that overflow; an input of zeros, one with an outlier, one along a row.
TEST_P(Head, BestLogitsOfUnusualRowsAndInputs) {
  constexpr int64_t kRows = 600, kCols = 160;
  std::vector<float> values = random_floats(kRows * kCols, 11, 0.02);
  const auto row = [&](int64_t i) { return values.begin() + i * kCols; };
  for (int64_t i = 0; i < 100; ++i) std::copy_n(row(0), kCols, row(100 + i));  // nearly the same
  for (int64_t i = 0; i < 100; ++i) row(100 + i)[i] *= 1.0f + 1e-6f * float(i);
  for (int64_t i = 200; i < 210; ++i) std::copy_n(row(3), kCols, row(i));
  std::fill(row(210), row(240), 0.0f);
  row(250)[5] = 1e4f;
  row(251)[6] = -1e4f;
  for (int64_t col = 0; col < kCols; ++col) {
    row(252)[col] *= 1e-42f;
    row(253)[col] *= 1e21f;
    row(254)[col] = 0.01f;
  }
  Table table(DType::kF32, kRows, kCols, values);
  for (int kind = 0; kind < 5; ++kind) {
    Floats x(1, kCols, 5);
    if (kind == 1) std::fill(x.values.begin(), x.values.end(), 0.0f);
    if (kind == 2) x.values[9] = 1e5f;
    if (kind == 3) std::copy_n(row(3), kCols, x.values.begin());
    if (kind == 4) std::fill(x.values.begin(), x.values.end(), 1.0f);
    expect_best(cpu_, table, x, all_logits(reference_, table, x));
  }
}

// The worst that the bounds allow: the input points along what the approximation of row 0 loses, so that its logit is
// above the approximate one by all of the bound, and row 1 lies just below it.
TEST_P(Head, BoundsHoldWhereTheErrorPointsAlongTheInput) {
  constexpr int64_t kCols = 256, kRows = 40;
  constexpr int kCodes = 128;
  for (const int unit : {4, 1}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      std::vector<float> values = random_floats(kCols, seed, 0.02);
      double squares = 0, logit = 0, lost = 0;
      for (const float w : values) squares += double(w) * w;
      const double step = 6.2 / kCodes * std::sqrt(squares / kCols);
      Floats x(1, kCols);
      for (size_t i = 0; i < size_t(kCols); ++i) {
        const int code = int(std::clamp(values[i] / step + kCodes / 2.0, 0.0, kCodes - 1.0));
        x.values[i] = float(values[i] - step * (code / unit * unit + (unit - 1) / 2.0 - (kCodes - 1) / 2.0));
        logit += double(values[i]) * x.values[i];
        lost += double(x.values[i]) * x.values[i];
      }
      values.resize(size_t(kRows * kCols));
      for (size_t i = 0; i < size_t(kCols); ++i) {
        values[size_t(kCols) + i] = float(x.values[i] * (logit - 0.02 * lost) / lost);
      }
      Table table(DType::kF32, kRows, kCols, values);
      expect_best(cpu_, table, x, all_logits(reference_, table, x));
    }
  }
}

// What it is for: a clear winner leaves nearly all rows unread, and even among random rows most are ruled out.
TEST_P(Head, FewRowsAreRead) {
  constexpr int64_t kRows = 20000, kCols = 512;
  const std::vector<float> values = random_floats(kRows * kCols, 3, 0.02);
  Table table(DType::kF16, kRows, kCols, values);
  const auto matrix = prepare_head(cpu_, table);
  const auto n_read = [&](double along) {
    Floats x(1, kCols, 4), out(1, kRows);
    for (int64_t i = 0; i < kCols; ++i) x.values[size_t(i)] += float(along) * values[size_t(77 * kCols + i)];
    table.n_read = 0;
    EXPECT_TRUE(cpu_.best_logits(*make_stream(cpu_, 2, 1, kCols), *matrix, x.view(), 1, out.view()));
    return table.n_read.load();
  };
  EXPECT_LE(n_read(50.0), 4);
  EXPECT_LE(n_read(0.0), kRows / 20);
  EXPECT_GE(n_read(0.0), 1);
}

// The first search reads the table once and exactly, the second makes the sketch; several rows make it at once.
TEST_P(Head, TheSketchIsMadeForASecondSearch) {
  constexpr int64_t kRows = 3000, kCols = 96;
  const std::vector<float> values = random_floats(kRows * kCols, 3, 0.02);
  Table table(DType::kBF16, kRows, kCols, values);
  for (const bool several : {false, true}) {
    const auto matrix = prepare_unsearched(cpu_, table);
    const size_t size_bytes = matrix->size_bytes();
    EXPECT_EQ(table.n_read.exchange(0), 0);
    const CopiedBytes before = copied_bytes();
    if (several) {
      Floats x(2, kCols, 1), out(2, kRows);
      ASSERT_TRUE(cpu_.best_logits(*make_stream(cpu_, 2, 2, kCols), *matrix, x.view(), 1, out.view()));
    } else {
      Floats x(1, kCols, 1), out(1, kRows);
      ASSERT_TRUE(cpu_.best_logits(*make_stream(cpu_, 2, 1, kCols), *matrix, x.view(), 1, out.view()));
      EXPECT_EQ(table.n_read.exchange(0), kRows);
      EXPECT_EQ(std::memcmp(out.values.data(), all_logits(reference_, table, x).data(), kRows * sizeof(float)), 0);
      table.n_read = 0;
      ASSERT_TRUE(cpu_.best_logits(*make_stream(cpu_, 1, 1, kCols), *matrix, x.view(), 1, out.view()));
    }
    EXPECT_GE(table.n_read.exchange(0), kRows);
    const CopiedBytes made = copied_bytes();
    EXPECT_GE((made - before).moved, uint64_t(kRows * kCols * 7 / 8)) << "codes of five and two bits";
    EXPECT_LE((made - before).moved, size_bytes);
    Floats x(1, kCols, 1), out(1, kRows);
    ASSERT_TRUE(cpu_.best_logits(*make_stream(cpu_, 2, 1, kCols), *matrix, x.view(), 1, out.view()));
    EXPECT_LT(table.n_read.exchange(0), kRows / 2);
    EXPECT_EQ((copied_bytes() - made).moved, 0u);
    EXPECT_EQ(matrix->size_bytes(), size_bytes) << "all memory is taken beforehand";
  }
}

TEST_P(Head, AFileThatCannotBeReadIsAnError) {
  Table table(DType::kF16, 100, 64, random_floats(6400, 1));
  const auto matrix = prepare_unsearched(cpu_, table);
  Floats x(1, 64, 2), out(1, 100);
  const auto stream = make_stream(cpu_, 2, 1, 64);
  const int32_t id = 7;
  EXPECT_TRUE(cpu_.embed(*stream, *matrix, {&id, 1}, x.view()));
  table.fails = true;
  EXPECT_FALSE(cpu_.best_logits(*stream, *matrix, x.view(), 1, out.view()));  // the table
  EXPECT_FALSE(cpu_.best_logits(*stream, *matrix, x.view(), 1, out.view()));  // for the sketch
  EXPECT_FALSE(cpu_.embed(*stream, *matrix, {&id, 1}, x.view()));
  EXPECT_FALSE(matrix->load_rows(stream->pool()));
  table.fails = false;
  EXPECT_TRUE(matrix->load_rows(stream->pool()));
  table.fails = true;  // all in memory now
  EXPECT_TRUE(cpu_.best_logits(*stream, *matrix, x.view(), 1, out.view()));
  EXPECT_TRUE(cpu_.embed(*stream, *matrix, {&id, 1}, x.view()));
}

// dot_rows with codes up to 3, in every position and at the largest magnitudes.
TEST_P(Head, RowsTakeEveryTwoBitCode) {
  constexpr int64_t kRowBytes = 1024, kRows = 8;
  const CounterRng rng(1);
  std::vector<uint8_t> rows(size_t(kRows * kRowBytes));
  std::vector<int8_t> x(size_t(4 * kRowBytes));
  std::vector<int32_t> ids(size_t(kRows + kPiecesAhead), int32_t(kRows - 1));
  std::iota(ids.begin(), ids.begin() + kRows, 0);
  for (int kind = 0; kind < 3; ++kind) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = kind == 0 ? uint8_t(rng.bits(i)) : uint8_t{0xff};
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = kind == 0 ? int8_t(rng.bits(i + 1000000)) : int8_t(kind == 1 ? 127 : -128);
    }
    int32_t sums[kRows];
    GetParam()->fields.dot_rows({rows.data(), kRowBytes, ids.data(), kRows, x.data(), sums});
    for (int64_t row = 0; row < kRows; ++row) {
      int32_t want = 0;
      for (int64_t i = 0; i < 4 * kRowBytes; ++i) {
        const uint8_t byte = rows[size_t(row * kRowBytes + i / 256 * 64 + i % 64)];
        want += int32_t(byte >> (i % 256 / 64 * 2) & 3) * x[size_t(i)];
      }
      ASSERT_EQ(sums[row], want) << "row " << row << ", kind " << kind;
    }
  }
}

// matvec_tile with codes up to 3, in every position and at the largest magnitudes.
TEST_P(Head, TilesTakeEveryTwoBitCode) {
  constexpr int64_t kBlocks = 640;
  const CounterRng rng(1);
  std::vector<uint8_t> tile(size_t(kBlocks * kBlockBytes) + 8192);
  std::vector<int8_t> q(size_t(kBlocks * kBlockCols));
  for (int kind = 0; kind < 3; ++kind) {
    for (size_t i = 0; i < tile.size(); ++i) tile[i] = kind == 0 ? uint8_t(rng.bits(i)) : uint8_t{0xff};
    for (size_t i = 0; i < q.size(); ++i)
      q[i] = kind == 0 ? int8_t(rng.bits(i + 1000000)) : int8_t(kind == 1 ? 127 : -128);
    int32_t sums[kTileRows];
    GetParam()->fields.matvec_tile(tile.data(), kBlocks, q.data(), sums);
    for (int64_t row = 0; row < kTileRows; ++row) {
      int32_t want = 0;
      for (int64_t col = 0; col < kBlocks * kBlockCols; ++col) {
        const uint8_t byte = tile[size_t(col / 16 * kBlockBytes + row * 4 + col % 4)];
        want += int32_t(byte >> (col % 16 / 4 * 2) & 3) * q[size_t(col)];
      }
      ASSERT_EQ(sums[row], want) << "row " << row << ", kind " << kind;
    }
  }
}

// A tile of upper codes with random bits, the largest codes and the largest magnitudes, at lengths that end anywhere;
// unpacked, through the product of several tokens, as far as its codes may go.
TEST_P(Head, TilesOfUpperCodes) {
  const CpuKernels& kernels = *GetParam();
  const CounterRng rng(1);
  for (const int64_t n_cols : {1, 31, 32, 33, 320, 2560, 20480}) {
    const int64_t n_blocks = (n_cols + kSketchBlockCols - 1) / kSketchBlockCols, stride = quantized_stride(n_cols);
    for (int kind = 0; kind < 3; ++kind) {
      std::vector<uint8_t> codes(size_t(kTileRows * n_cols));
      std::vector<int8_t> q(size_t(stride), 0);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = kind == 0 ? uint8_t(rng.bits(i) & 31) : kSketchMaxCode;
      for (size_t i = 0; i < size_t(n_cols); ++i) {
        q[i] = kind == 0 ? int8_t(rng.bits(i + 1000000)) : int8_t(kind == 1 ? 127 : -128);
      }
      std::vector<uint8_t> tile(size_t(n_blocks * kSketchBlockBytes), 0);
      int32_t want[kTileRows], sums[kTileRows];
      for (int64_t row = 0; row < kTileRows; ++row) {
        pack_sketch_row(codes.data() + row * n_cols, n_cols, row, tile.data());
        want[row] = 0;
        for (int64_t col = 0; col < n_cols; ++col) want[row] += codes[size_t(row * n_cols + col)] * q[size_t(col)];
      }
      kernels.sketch.matvec_tile(tile.data(), n_blocks, q.data(), sums);
      ASSERT_EQ(std::memcmp(sums, want, sizeof want), 0) << n_cols << " columns, kind " << kind;
      const MatmulKernels& matmul = kernels.matmul;
      ASSERT_EQ(matmul.matmul_tile == nullptr, kernels.sketch.unpack_tile == nullptr);
      if (matmul.matmul_tile == nullptr) continue;
      ASSERT_GE(matmul.max_code, 3);
      std::vector<uint8_t> unpacked(size_t(stride * kTileRows));
      std::vector<int8_t> packed(size_t(stride * matmul.n_tokens));
      std::vector<int32_t> products(size_t(kTileRows * matmul.n_tokens));
      kernels.sketch.unpack_tile(tile.data(), n_blocks, unpacked.data());
      if (matmul.max_code < kSketchMaxCode) {
        for (uint8_t& code : unpacked) code &= 3;
        for (int64_t row = 0; row < kTileRows; ++row) {
          want[row] = 0;
          for (int64_t col = 0; col < n_cols; ++col) {
            want[row] += (codes[size_t(row * n_cols + col)] & 3) * q[size_t(col)];
          }
        }
      }
      matmul.pack_tokens(q.data(), stride, 1, stride / kBlockCols, packed.data());
      matmul.matmul_tile(unpacked.data(), packed.data(), n_blocks * (kSketchBlockCols / kBlockCols), 1,
                         products.data());
      ASSERT_EQ(std::memcmp(products.data(), want, sizeof want), 0) << n_cols << " columns, kind " << kind;
    }
  }
}

}  // namespace
}  // namespace bitnet
