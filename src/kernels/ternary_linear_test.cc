#include "kernels/test_support.h"

#include <atomic>

namespace bitnet {
namespace {

BN_EVERY_ISA(TernaryLinear);
INSTANTIATE_TEST_SUITE_P(Emulated, TernaryLinear, testing::ValuesIn(emulated_cpu_kernels()),
                         [](const auto& parameter) { return std::string(parameter.param->name); });

enum class Fill { kRandom, kAllHighest, kAllLowest };

TernarySource ternary_source(const std::vector<uint8_t>& codes, int64_t n_rows, int64_t n_cols, TernaryScales scales) {
  TernarySource source;
  source.n_rows = n_rows;
  source.n_cols = n_cols;
  source.scales = std::move(scales);
  source.read_codes = [&codes, n_cols](int64_t row, int64_t n, uint8_t* out) -> Status {
    std::memcpy(out, codes.data() + row * n_cols, size_t(n * n_cols));
    return ok();
  };
  return source;
}

std::vector<uint8_t> make_codes(int64_t n, uint64_t seed, Fill fill) {
  const CounterRng rng(seed);
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = fill == Fill::kRandom ? uint8_t(rng.bits(i) % 3) : fill == Fill::kAllHighest ? 2 : 0;
  }
  return codes;
}

Quantized make_tokens(int64_t n_tokens, int64_t n_cols, uint64_t seed, Fill fill) {
  const CounterRng rng(seed);
  Quantized x(n_tokens, n_cols);
  for (int64_t t = 0; t < n_tokens; ++t) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n_cols; ++i) {
      const int random = int(rng.bits(uint64_t(t * n_cols + i)) % 256) - 128;
      const int q = fill == Fill::kRandom ? random : fill == Fill::kAllHighest ? 127 : -128;
      x.codes[size_t(t * x.view.stride + i)] = int8_t(q);
      sum += q;
    }
    x.sums[size_t(t)] = sum;
    x.inv_scales[size_t(t)] = 0.0123f * float(t + 1);
  }
  return x;
}

std::vector<float> run_linear(const Backend& backend, const std::vector<const TernarySource*>& sources,
                              const Quantized& x, int n_threads) {
  ThreadPool pool(n_threads);
  std::vector<std::unique_ptr<Matrix>> matrices;
  std::vector<Floats> outs;
  std::vector<LinearCall> calls;
  for (const TernarySource* source : sources) {
    auto matrix = backend.prepare(*source, pool);
    EXPECT_TRUE(matrix.has_value());
    matrices.push_back(*std::move(matrix));
    outs.emplace_back(x.view.n_rows, source->n_rows);
  }
  for (size_t i = 0; i < outs.size(); ++i) calls.push_back({matrices[i].get(), outs[i].view()});
  const auto stream = make_stream(backend, n_threads, x.view.n_rows, x.view.n_cols);
  backend.linear(*stream, calls, x.view);
  std::vector<float> all;
  for (const Floats& out : outs) all.insert(all.end(), out.values.begin(), out.values.end());
  return all;
}

TEST_P(TernaryLinear, TernaryLinearEqualsTheReferenceForEveryShape) {
  for (const int64_t n_cols : {1, 4, 15, 16, 100, 320, 704, 8640}) {
    for (const int64_t n_rows : {1, 33, 70}) {
      const auto codes = make_codes(n_rows * n_cols, uint64_t(n_rows * n_cols), Fill::kRandom);
      const TernarySource source = ternary_source(codes, n_rows, n_cols, {.tensor = 0.37f});
      for (const int64_t n_tokens : {1, 2, 13}) {
        const Quantized x = make_tokens(n_tokens, n_cols, 7, Fill::kRandom);
        EXPECT_TRUE(same_bits(run_linear(reference_, {&source}, x, 1), run_linear(cpu_, {&source}, x, 2)))
            << n_rows << " x " << n_cols << ", " << n_tokens << " tokens";
      }
    }
  }
}

// Inputs with many zeros, all zeros and none.
Quantized sparse_tokens(int64_t n_tokens, int64_t n_cols, double density) {
  Quantized x = make_tokens(n_tokens, n_cols, 11, Fill::kRandom);
  const CounterRng rng(31);
  for (int64_t t = 0; t < n_tokens; ++t) {
    x.sums[size_t(t)] = 0;
    for (int64_t i = 0; i < n_cols; ++i) {
      int8_t& code = x.codes[size_t(t * x.view.stride + i)];
      if (rng.uniform(uint64_t(t * n_cols + i)) >= density) code = 0;
      x.sums[size_t(t)] += code;
    }
  }
  return x;
}

TEST_P(TernaryLinear, LayoutsForSomeRowsOrColumnsEqualTheReferenceForEveryShape) {
  for (const TernaryUse use : {TernaryUse::kSomeRows, TernaryUse::kSomeColumns}) {
    for (const int64_t n_cols : {1, 16, 100, 321, 700, 8640}) {
      for (const int64_t n_rows : {1, 33, 300}) {
        const auto codes = make_codes(n_rows * n_cols, uint64_t(n_rows * n_cols), Fill::kRandom);
        TernarySource source = ternary_source(codes, n_rows, n_cols, {.tensor = 0.37f});
        source.use = use;
        for (const int64_t n_tokens : {1, 3, 9, 13}) {
          for (const double density : {0.0, 0.2, 1.0}) {
            const Quantized x = sparse_tokens(n_tokens, n_cols, density);
            EXPECT_TRUE(same_bits(run_linear(reference_, {&source}, x, 1), run_linear(cpu_, {&source}, x, 3)))
                << n_rows << " x " << n_cols << ", " << n_tokens << " tokens, density " << density;
          }
        }
      }
    }
  }
}

TEST_P(TernaryLinear, LayoutsForSomeRowsOrColumnsSurviveSaturatedInputs) {
  constexpr int64_t kRows = 300, kCols = 8640;
  for (const TernaryUse use : {TernaryUse::kSomeRows, TernaryUse::kSomeColumns}) {
    for (const Fill weights : {Fill::kAllHighest, Fill::kAllLowest}) {
      const auto codes = make_codes(kRows * kCols, 1, weights);
      TernarySource source = ternary_source(codes, kRows, kCols, {});
      source.use = use;
      for (const Fill values : {Fill::kAllHighest, Fill::kAllLowest}) {
        const Quantized x = make_tokens(2, kCols, 1, values);
        EXPECT_TRUE(same_bits(run_linear(reference_, {&source}, x, 1), run_linear(cpu_, {&source}, x, 1)));
      }
    }
  }
}

TEST_P(TernaryLinear, RowsThatAreWantedEqualTheReference) {
  for (const int64_t n_rows : {1, 70, 5000}) {
    constexpr int64_t kCols = 330;
    const auto codes = make_codes(n_rows * kCols, 5, Fill::kRandom);
    TernarySource source = ternary_source(codes, n_rows, kCols, {.tensor = 0.7f});
    source.use = TernaryUse::kSomeRows;
    for (const int64_t n_tokens : {1, 5, 14}) {
      const Quantized x = make_tokens(n_tokens, kCols, 3, Fill::kRandom);
      const std::vector<float> want = run_linear(reference_, {&source}, x, 1);
      Floats gate(n_tokens, n_rows, 9), out(n_tokens, n_rows);
      gate.values[0] = 0.0f;
      ThreadPool pool(2);
      const auto matrix = cpu_.prepare(source, pool);
      ASSERT_TRUE(matrix.has_value());
      const LinearCall call{matrix->get(), out.view(), gate.view()};
      const auto stream = make_stream(cpu_, 2, n_tokens, kCols);
      cpu_.linear(*stream, {&call, 1}, x.view);
      for (size_t i = 0; i < want.size(); ++i) {
        if (gate.values[i] > 0) {
          ASSERT_EQ(out.values[i], want[i]) << i << " of " << want.size();
        }
      }
      if (n_tokens == 1 && n_rows > 1000) {  // rows that are not wanted were not read
        EXPECT_LT(stream->weight_bytes_read(), matrix->get()->size_bytes() * 6 / 10);
        EXPECT_GT(stream->weight_bytes_read(), matrix->get()->size_bytes() * 4 / 10);
      }
    }
  }
}

TEST_P(TernaryLinear, ColumnsWithoutInputAreNotRead) {
  constexpr int64_t kRows = 256, kCols = 4000;
  const auto codes = make_codes(kRows * kCols, 5, Fill::kRandom);
  TernarySource source = ternary_source(codes, kRows, kCols, {});
  source.use = TernaryUse::kSomeColumns;
  ThreadPool pool(2);
  const auto matrix = cpu_.prepare(source, pool);
  ASSERT_TRUE(matrix.has_value());
  Floats out(1, kRows);
  const LinearCall call{matrix->get(), out.view()};
  const Quantized x = sparse_tokens(1, kCols, 0.25);
  const auto stream = make_stream(cpu_, 2, 1, kCols);
  cpu_.linear(*stream, {&call, 1}, x.view);
  EXPECT_LT(stream->weight_bytes_read(), matrix->get()->size_bytes() * 3 / 10);
}

TEST_P(TernaryLinear, TernaryLinearEqualsTheReferenceForEveryNumberOfTokens) {
  constexpr int64_t kRows = 96, kCols = 304;
  const auto codes = make_codes(kRows * kCols, 3, Fill::kRandom);
  const TernarySource source = ternary_source(codes, kRows, kCols, {.tensor = 1.5f});
  for (int64_t n_tokens = 1; n_tokens <= 39; ++n_tokens) {
    const Quantized x = make_tokens(n_tokens, kCols, uint64_t(n_tokens), Fill::kRandom);
    EXPECT_TRUE(same_bits(run_linear(reference_, {&source}, x, 1), run_linear(cpu_, {&source}, x, 1))) << n_tokens;
  }
}

// The largest magnitudes in every lane: 16-bit sums that were widened late would wrap.
TEST_P(TernaryLinear, TernaryLinearSurvivesSaturatedInputs) {
  constexpr int64_t kRows = 33, kCols = 8640;
  for (const Fill weights : {Fill::kAllHighest, Fill::kAllLowest}) {
    const auto codes = make_codes(kRows * kCols, 1, weights);
    const TernarySource source = ternary_source(codes, kRows, kCols, {});
    for (const Fill values : {Fill::kAllHighest, Fill::kAllLowest}) {
      for (const int64_t n_tokens : {1, 14}) {
        Quantized x = make_tokens(n_tokens, kCols, 1, values);
        std::fill(x.inv_scales.begin(), x.inv_scales.end(), 1.0f);
        const int sign = (weights == Fill::kAllHighest) ? 1 : -1, value = values == Fill::kAllHighest ? 127 : -128;
        const std::vector<float> want(size_t(n_tokens * kRows), float(sign * value * kCols));
        EXPECT_TRUE(same_bits(want, run_linear(cpu_, {&source}, x, 1)));
      }
    }
  }
}

TEST_P(TernaryLinear, ThreadsAndSeveralMatricesAtOnceChangeNothing) {
  constexpr int64_t kCols = 320;
  const int64_t rows[3] = {160, 33, 1};
  std::vector<std::vector<uint8_t>> codes;
  std::vector<TernarySource> sources;
  for (int i = 0; i < 3; ++i) codes.push_back(make_codes(rows[i] * kCols, uint64_t(i + 10), Fill::kRandom));
  for (size_t i = 0; i < 3; ++i)
    sources.push_back(ternary_source(codes[i], rows[i], kCols, {.tensor = 0.5f * float(i + 1)}));
  const std::vector<const TernarySource*> all = {&sources[0], &sources[1], &sources[2]};
  for (const int64_t n_tokens : {1, 29}) {
    const Quantized x = make_tokens(n_tokens, kCols, 99, Fill::kRandom);
    const std::vector<float> want = run_linear(reference_, all, x, 1);
    for (const int n_threads : {1, 2, 3, 8}) {
      EXPECT_TRUE(same_bits(want, run_linear(cpu_, all, x, n_threads))) << n_threads << " threads";
    }
  }
}

TernaryScales grouped_scales(int64_t n_rows, int64_t n_cols, int64_t group_cols) {
  TernaryScales scales;
  scales.group_cols = group_cols;
  scales.groups = random_floats(n_rows * (n_cols / group_cols), 5);
  return scales;
}

TEST_P(TernaryLinear, GroupedScales) {
  for (const int64_t group_cols : {256, 16}) {
    constexpr int64_t kRows = 45, kCols = 768;
    const auto codes = make_codes(kRows * kCols, 17, Fill::kRandom);
    const TernarySource source = ternary_source(codes, kRows, kCols, grouped_scales(kRows, kCols, group_cols));
    for (const int64_t n_tokens : {1, 3, 14}) {
      const Quantized x = make_tokens(n_tokens, kCols, 5, Fill::kRandom);
      EXPECT_TRUE(same_bits(run_linear(reference_, {&source}, x, 1), run_linear(cpu_, {&source}, x, 2)));
    }
  }
}

TEST_P(TernaryLinear, TernaryWeightsWithFloatActivations) {
  for (const int64_t n_cols : {15, 100, 512}) {
    constexpr int64_t kRows = 70;
    const auto codes = make_codes(kRows * n_cols, 23, Fill::kRandom);
    std::vector<TernaryScales> scales = {{.tensor = 0.3f}};
    if (n_cols == 512) scales.push_back(grouped_scales(kRows, n_cols, 256));
    for (const TernaryScales& s : scales) {
      TernarySource source = ternary_source(codes, kRows, n_cols, s);
      for (const int64_t n_tokens : {1, 2, 5}) {
        source.use = n_tokens == 1   ? TernaryUse::kSomeRows
                     : n_tokens == 2 ? TernaryUse::kSomeColumns
                                     : TernaryUse::kWhole;
        Floats x(n_tokens, n_cols, 77);
        std::vector<float> results[2];
        for (int i = 0; i < 2; ++i) {
          const Backend& backend = i == 0 ? static_cast<const Backend&>(reference_) : cpu_;
          ThreadPool pool(2);
          const auto matrix = backend.prepare(source, pool);
          ASSERT_TRUE(matrix.has_value());
          Floats out(n_tokens, kRows);
          const LinearCall call = {matrix->get(), out.view()};
          backend.linear(*make_stream(backend, 2, n_tokens, n_cols), {&call, 1}, x.view());
          results[i] = out.values;
        }
        EXPECT_TRUE(same_bits(results[0], results[1])) << n_cols << " columns, " << n_tokens << " tokens";
      }
    }
  }
}

TEST_P(TernaryLinear, AnErrorWhileReadingIsReturned) {
  TernarySource source;
  source.n_rows = 100;
  source.n_cols = 64;
  std::atomic<int> n_calls{0};
  source.read_codes = [&](int64_t row, int64_t n, uint8_t* out) -> Status {
    ++n_calls;
    std::memset(out, 1, size_t(n * 64));
    if (row + n > 40) return invalid_input("row {} is damaged", std::max(row, int64_t{40}));
    return ok();
  };
  ThreadPool pool(3);
  const auto matrix = cpu_.prepare(source, pool);
  ASSERT_FALSE(matrix.has_value());
  EXPECT_EQ(matrix.error().message, "row 40 is damaged");
  EXPECT_GT(n_calls, 0);
}

TEST_P(TernaryLinear, ShapesAndScalesThatDoNotFitAreRefused) {
  const std::vector<uint8_t> codes(64, 1);
  ThreadPool pool(1);
  for (const Backend* backend : {static_cast<const Backend*>(&cpu_), static_cast<const Backend*>(&reference_)}) {
    EXPECT_FALSE(backend->prepare(ternary_source(codes, 0, 64, {}), pool).has_value());
    EXPECT_FALSE(backend->prepare(ternary_source(codes, 1, int64_t{1} << 40, {}), pool).has_value());
    EXPECT_FALSE(backend->prepare(ternary_source(codes, 1, 64, {.tensor = 1, .group_cols = 20, .groups = {1}}), pool)
                     .has_value());
    EXPECT_FALSE(backend->prepare(ternary_source(codes, 1, 64, {.tensor = 1, .group_cols = 32, .groups = {1}}), pool)
                     .has_value());
    EXPECT_TRUE(backend->prepare(ternary_source(codes, 1, 64, {.tensor = 1, .group_cols = 32, .groups = {1, 1}}), pool)
                    .has_value());
  }
}

}  // namespace
}  // namespace bitnet
