#include "base/half.h"
#include "kernels/test_support.h"
#include "quant/blocks.h"

#include <map>

namespace bitnet {
namespace {

BN_EVERY_ISA(FloatLinear);

std::vector<float> run_linear(const Backend& backend, const FloatSource& source, MatrixView x, int n_threads) {
  ThreadPool pool(n_threads);
  const auto matrix = backend.prepare(source, pool);
  EXPECT_TRUE(matrix.has_value());
  Floats out(x.n_rows, source.n_rows);
  const LinearCall call = {matrix->get(), out.view()};
  backend.linear(*make_stream(backend, n_threads, x.n_rows, x.n_cols), {&call, 1}, x);
  return out.values;
}

const std::map<DType, std::vector<int64_t>> kColumnsByType = {{DType::kF32, {1, 15, 16, 100, 2560}},
                                                              {DType::kF16, {1, 15, 16, 100, 2560}},
                                                              {DType::kBF16, {1, 15, 16, 100, 2560}},
                                                              {DType::kQ8_0, {32, 2560}},
                                                              {DType::kQ4_0, {32, 352}},
                                                              {DType::kQ6_K, {256, 768}},
                                                              {DType::kQ4_K, {256, 768}}};

TEST_P(FloatLinear, FloatLinearEqualsTheReference) {
  for (const auto& [dtype, all_cols] : kColumnsByType) {
    for (const int64_t n_cols : all_cols) {
      for (const int64_t n_rows : {1, 37}) {
        const auto bytes = make_weights(dtype, n_rows, n_cols);
        const FloatSource source = float_source(dtype, bytes, n_rows, n_cols);
        for (const int64_t n_tokens : {1, 2, 7}) {
          Floats x(n_tokens, n_cols, 41);
          EXPECT_TRUE(same_bits(run_linear(reference_, source, x.view(), 1), run_linear(cpu_, source, x.view(), 2)))
              << dtype_info(dtype).name << " " << n_rows << " x " << n_cols << ", " << n_tokens << " tokens";
        }
      }
    }
  }
}

TEST_P(FloatLinear, FloatLinearDoesNotDependOnThreads) {
  const auto bytes = make_weights(DType::kF16, 259, 320);
  const FloatSource source = float_source(DType::kF16, bytes, 259, 320);
  for (const int64_t n_tokens : {1, 9}) {
    Floats x(n_tokens, 320, 43);
    const auto want = run_linear(reference_, source, x.view(), 1);
    for (const int n_threads : {1, 2, 3, 8}) {
      EXPECT_TRUE(same_bits(want, run_linear(cpu_, source, x.view(), n_threads))) << n_threads << " threads";
    }
  }
}

// All 65536 half floats, both formats, as a table of one column... and back through embed.
TEST_P(FloatLinear, EveryHalfFloatWidensExactly) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    constexpr int64_t kRows = 2048, kCols = 32;
    std::vector<std::byte> bytes(kRows * kCols * 2);
    for (size_t i = 0; i < kRows * kCols; ++i) {
      const uint16_t half = uint16_t(i);
      std::memcpy(&bytes[2 * i], &half, 2);
    }
    ThreadPool pool(1);
    const auto matrix = cpu_.prepare(float_source(dtype, bytes, kRows, kCols), pool);
    ASSERT_TRUE(matrix.has_value());
    std::vector<int32_t> ids(kRows);
    for (size_t i = 0; i < kRows; ++i) ids[i] = int32_t(kRows - 1 - i);
    Floats out(kRows, kCols);
    EXPECT_TRUE(cpu_.embed(*make_stream(cpu_, 2, kRows, kCols), **matrix, ids, out.view()));
    for (size_t i = 0; i < kRows * kCols; ++i) {
      const uint16_t half = uint16_t((kRows - 1 - i / kCols) * kCols + i % kCols);
      const float want = dtype == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
      if (want != want) {
        ASSERT_NE(out.values[i], out.values[i]) << half;  // a NaN; processors set its quiet bit or do not
      } else {
        ASSERT_EQ(std::bit_cast<uint32_t>(want), std::bit_cast<uint32_t>(out.values[i])) << half;
      }
    }
  }
}

TEST_P(FloatLinear, EmbedEqualsTheReferenceForEveryType) {
  for (const auto& [dtype, all_cols] : kColumnsByType) {
    for (const int64_t n_cols : all_cols) {
      const auto bytes = make_weights(dtype, 9, n_cols);
      const FloatSource source = float_source(dtype, bytes, 9, n_cols);
      const std::vector<int32_t> ids = {8, 0, 3, 3};
      std::vector<float> results[2];
      for (int i = 0; i < 2; ++i) {
        const Backend& backend = i == 0 ? static_cast<const Backend&>(reference_) : cpu_;
        ThreadPool pool(1);
        const auto matrix = backend.prepare(source, pool);
        ASSERT_TRUE(matrix.has_value());
        Floats out(4, n_cols);
        EXPECT_TRUE(backend.embed(*make_stream(backend, 1, 4, n_cols), **matrix, ids, out.view()));
        results[i] = out.values;
      }
      EXPECT_TRUE(same_bits(results[0], results[1])) << dtype_info(dtype).name << ", " << n_cols << " columns";
    }
  }
}

TEST_P(FloatLinear, UnfitTypesAndShapesAreRefused) {
  const std::vector<std::byte> bytes(4096);
  ThreadPool pool(1);
  for (const Backend* backend : {static_cast<const Backend*>(&cpu_), static_cast<const Backend*>(&reference_)}) {
    EXPECT_FALSE(backend->prepare(float_source(DType::kI2_S, bytes, 1, 128), pool).has_value());
    EXPECT_FALSE(backend->prepare(float_source(DType::kQ8_0, bytes, 1, 33), pool).has_value());
    EXPECT_FALSE(backend->prepare(float_source(DType::kF32, bytes, 1, 0), pool).has_value());
    EXPECT_FALSE(backend->prepare(float_source(DType::kF32, bytes, 1, int64_t{1} << 62), pool).has_value());
  }
}

}  // namespace
}  // namespace bitnet
