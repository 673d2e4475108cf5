#include "base/rng.h"
#include "quant/activations.h"
#include "quant/error_metrics.h"
#include "quant/hadamard.h"
#include "quant/integer_quantizer.h"
#include "quant/scheme.h"
#include "quant/ternary_quantizers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace bitnet {
namespace {

std::vector<float> normals(size_t n, uint64_t seed, float deviation = 0.03f) {
  const CounterRng rng(seed);
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = float(rng.normal(i)) * deviation;
  return x;
}
double squared_error(std::span<const float> x, std::span<const uint8_t> codes, double alpha) {
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double off = double(x[i]) - alpha * (int(codes[i]) - 1);
    error += off * off;
  }
  return error;
}

// All 3^n codes, each with its best alpha.
double least_error_of_all(std::span<const float> x) {
  double power = 0, best_gain = 0;
  for (const float v : x) power += double(v) * double(v);
  int64_t n_codes = 1;
  for (size_t i = 0; i < x.size(); ++i) n_codes *= 3;
  for (int64_t number = 0; number < n_codes; ++number) {
    double xq = 0;
    int64_t rest = number, kept = 0;
    for (size_t i = 0; i < x.size(); ++i, rest /= 3) {
      const int64_t q = rest % 3 - 1;
      xq += double(q) * double(x[i]);
      kept += q != 0;
    }
    if (kept > 0 && xq > 0) best_gain = std::max(best_gain, xq * xq / double(kept));
  }
  return power - best_gain;
}

TEST(TernaryQuantizers, LeastSquaresIsTheBestOfAllCodes) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    std::vector<float> x = normals(1 + seed % 10, seed, 1.0f);
    if (seed % 4 == 1) {
      for (float& v : x) v = std::round(v * 2.0f) / 2.0f;  // equal magnitudes and zeros
    }
    if (seed % 4 == 2) x[0] *= 100.0f;
    std::vector<uint8_t> codes(x.size());
    const float alpha = ternarize_group(TernaryMethod::kLeastSquares, x, {}, codes.data());
    EXPECT_NEAR(squared_error(x, codes, double(alpha)), least_error_of_all(x), 1e-5 * (1.0 + least_error_of_all(x)))
        << "seed " << seed;
  }
}

TEST(TernaryQuantizers, LeastSquaresBeatsTheOthersAndLearnedComesNext) {
  const std::vector<float> x = normals(20000, 5);
  std::vector<uint8_t> codes(x.size());
  const auto error_of = [&](TernaryMethod method) {
    const float alpha = ternarize_group(method, x, {}, codes.data());
    return squared_error(x, codes, double(alpha));
  };
  const double best = error_of(TernaryMethod::kLeastSquares), learned = error_of(TernaryMethod::kLearned);
  const double twn = error_of(TernaryMethod::kTwn), absmean = error_of(TernaryMethod::kAbsmean);
  EXPECT_LE(best, learned);
  EXPECT_LT(learned, best * 1.001);  // of a bell there is one fixed point, the best
  EXPECT_LT(learned, absmean);
  EXPECT_LT(best, twn);
  EXPECT_LT(twn, best * 1.2);
}

TEST(TernaryQuantizers, FollowTheirFormulas) {
  const std::vector<float> x = {0.1f, -0.2f, 0.3f, -0.4f, 0.0f, 2.0f};
  std::vector<uint8_t> codes(x.size());
  // The median of 0, .1, .2, .3, .4, 2 is .25: up to .125 is 0.
  EXPECT_FLOAT_EQ(ternarize_group(TernaryMethod::kAbsmedian, x, {}, codes.data()), 0.25f);
  EXPECT_EQ(codes, (std::vector<uint8_t>{1, 0, 2, 0, 1, 2}));
  // TWN: up to 0.7 * 0.5 is 0; alpha is the mean of .4 and 2.
  EXPECT_FLOAT_EQ(ternarize_group(TernaryMethod::kTwn, x, {}, codes.data()), 1.2f);
  EXPECT_EQ(codes, (std::vector<uint8_t>{1, 1, 1, 0, 1, 2}));
  for (const TernaryMethod method : {TernaryMethod::kAbsmean, TernaryMethod::kAbsmedian, TernaryMethod::kLeastSquares,
                                     TernaryMethod::kTwn, TernaryMethod::kLearned}) {
    const std::vector<float> zeros(6, 0.0f);
    EXPECT_GT(ternarize_group(method, zeros, {}, codes.data()), 0.0f) << ternary_method_name(method);
    EXPECT_EQ(codes, std::vector<uint8_t>(6, 1)) << ternary_method_name(method);
  }
}

TEST(TernaryQuantizers, ImportanceMovesTheLearnedScale) {
  // Two columns; only the first counts, so alpha is its mean magnitude.
  const std::vector<float> x = {1.0f, 0.8f, 1.2f, 0.7f};
  const std::vector<float> importance = {1.0f, 0.0f};
  TernaryOptions options;
  options.method = TernaryMethod::kLearned;
  options.importance = importance;
  EXPECT_FLOAT_EQ(ternarize(x, 2, 2, options)->scales.tensor, 1.1f);
}

TEST(TernaryQuantizers, RowsAndGroupsHaveScalesOfTheirOwn) {
  std::vector<float> x = normals(8 * 256, 3);
  for (size_t i = 0; i < 256; ++i) x[i] *= 10.0f;
  TernaryOptions options;
  options.granularity = Granularity::kGroup;
  options.group_cols = 64;
  const auto groups = ternarize(x, 8, 256, options);
  ASSERT_TRUE(groups);
  ASSERT_EQ(groups->scales.groups.size(), 32u);
  for (size_t g = 0; g < 32; ++g) {
    std::vector<uint8_t> codes(64);
    EXPECT_EQ(groups->scales.groups[g], absmean_ternarize(std::span(x).subspan(64 * g, 64), codes.data()));
    EXPECT_TRUE(std::equal(codes.begin(), codes.end(), groups->codes.begin() + long(64 * g)));
  }
  options.granularity = Granularity::kRow;
  EXPECT_EQ(ternarize(x, 8, 256, options)->scales.group_cols, 256);
  options.granularity = Granularity::kGroup;
  options.group_cols = 100;
  EXPECT_FALSE(ternarize(x, 8, 256, options));
  x[300] = std::nanf("");
  EXPECT_NE(ternarize(x, 8, 256, {}).error().message.find("row 1, column 44"), std::string::npos);
}

TEST(IntegerQuantizer, EveryValueIsItsNearestLevel) {
  const std::vector<float> x = normals(16 * 96, 2, 1.0f);
  for (int bits = 1; bits <= 8; ++bits) {
    for (const bool symmetric : {true, false}) {
      for (const Granularity granularity :
           {Granularity::kTensor, Granularity::kRow, Granularity::kColumn, Granularity::kGroup}) {
        IntegerOptions options;
        options.bits = bits;
        options.symmetric = symmetric;
        options.granularity = granularity;
        options.group_cols = 32;
        const auto codes = quantize_integers(x, 16, 96, options);
        ASSERT_TRUE(codes);
        std::vector<float> back(x.size());
        ASSERT_TRUE(dequantize_integers(*codes, back));
        const int top = symmetric ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
        for (size_t i = 0; i < x.size(); ++i) {
          const size_t group = codes->group_of(int64_t(i) / 96, int64_t(i) % 96);
          if (bits == 1 && symmetric) {
            EXPECT_EQ(codes->q[i], x[i] < 0 ? -1 : 1);
            continue;
          }
          EXPECT_LE(codes->q[i], top);
          EXPECT_GE(codes->q[i], symmetric ? -top : 0);
          EXPECT_LE(std::fabs(back[i] - x[i]), 1.0001f * codes->scales[group] * (symmetric ? 0.5f : 1.0f)) << bits;
        }
        const size_t n_groups = granularity == Granularity::kTensor   ? 1
                                : granularity == Granularity::kRow    ? 16
                                : granularity == Granularity::kColumn ? 96
                                                                      : 48;
        EXPECT_EQ(codes->scales.size(), n_groups);
      }
    }
  }
}

TEST(IntegerQuantizer, ZeroStaysZeroAndSearchLowersTheError) {
  std::vector<float> x = normals(4096, 8, 1.0f);
  x[7] = 40.0f;
  x[9] = 0.0f;
  IntegerOptions options;
  options.bits = 4;
  const auto error_of = [&](const IntegerOptions& o) {
    const auto codes = *quantize_integers(x, 1, 4096, o);
    std::vector<float> back(x.size());
    EXPECT_TRUE(dequantize_integers(codes, back));
    EXPECT_EQ(back[9], 0.0f);
    ErrorMeter meter;
    meter.add(x, back);
    return meter.metrics().mse;
  };
  const double plain = error_of(options);
  options.search = true;
  EXPECT_LT(error_of(options), plain);
  options.symmetric = false;
  EXPECT_LT(error_of(options), plain);
}

TEST(IntegerQuantizer, StochasticRoundingHasTheValueAsItsMean) {
  const std::vector<float> x = {0.3f, -1.45f, 2.0f, 7.0f};  // steps of 1
  std::vector<double> mean(4, 0.0);
  IntegerOptions options;
  options.bits = 4;
  constexpr int kDraws = 20000;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    options.stochastic_seed = seed;
    const auto codes = *quantize_integers(x, 1, 4, options);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_LE(std::fabs(double(codes.q[i]) - double(x[i])), 1.0);
      mean[i] += double(codes.q[i]) / kDraws;
    }
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(mean[i], double(x[i]), 0.015);  // four deviations
  EXPECT_EQ(quantize_integers(x, 1, 4, options)->q, quantize_integers(x, 1, 4, options)->q);
}

TEST(IntegerQuantizer, BitsArePackedWithoutGaps) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t n : {0, 1, 7, 8, 9, 1000}) {
      const CounterRng rng(uint64_t(bits * 1000 + n));
      std::vector<uint8_t> values(static_cast<size_t>(n));
      for (size_t i = 0; i < values.size(); ++i) values[i] = uint8_t(rng.bits(i) & ((1u << bits) - 1));
      const auto bytes = pack_bits(values, bits);
      EXPECT_EQ(bytes.size(), size_t((n * bits + 7) / 8));
      EXPECT_EQ(*unpack_bits(bytes, bits, n), values);
      EXPECT_FALSE(unpack_bits(bytes, bits, n + 16));
    }
  }
  EXPECT_EQ(pack_bits(std::vector<uint8_t>{5, 3, 6}, 3), (std::vector<std::byte>{std::byte(0x9d), std::byte(1)}));
}

TEST(Hadamard, IsARotationThatTurnsBack) {
  std::vector<float> x = normals(512, 4, 1.0f), original = x;
  x[100] = original[100] = 30.0f;
  hadamard(x.data(), 512, 128, 7);
  double before = 0, after = 0;
  float largest = 0;
  for (size_t i = 0; i < 512; ++i) {
    before += double(original[i]) * double(original[i]);
    after += double(x[i]) * double(x[i]);
    largest = std::max(largest, std::fabs(x[i]));
  }
  EXPECT_NEAR(after, before, 1e-3 * before);
  EXPECT_LT(largest, 8.0f) << "the outlier is spread over its block";
  EXPECT_NE(x[0], original[0]);
  inverse_hadamard(x.data(), 512, 128, 7);
  for (size_t i = 0; i < 512; ++i) EXPECT_NEAR(x[i], original[i], 1e-4f);
}

TEST(ErrorMetrics, AreTheirDefinitions) {
  ErrorMeter meter;
  meter.add(std::vector<float>{3.0f, 4.0f}, std::vector<float>{3.0f, 3.0f});
  ErrorMetrics m = meter.metrics();
  EXPECT_DOUBLE_EQ(m.mse, 0.5);
  EXPECT_DOUBLE_EQ(m.max_error, 1.0);
  EXPECT_NEAR(m.sqnr_db, 10 * std::log10(25.0), 1e-12);
  EXPECT_NEAR(m.cosine, 21.0 / (5.0 * std::sqrt(18.0)), 1e-12);
  ErrorMeter other;
  other.add(std::vector<float>{1.0f}, std::vector<float>{1.0f});
  EXPECT_EQ(other.metrics().sqnr_db, 999.0);
  other.add(meter);
  EXPECT_EQ(other.metrics().n, 3);
  EXPECT_DOUBLE_EQ(other.metrics().mse, 1.0 / 3);
}

TEST(Activations, Int4AndTopKFollowTheirFormulas) {
  const std::vector<float> x = normals(257, 6, 2.0f);
  std::vector<int8_t> q(x.size()), dense(x.size());
  QuantizedRowInfo info = quantize_row_int4(x.data(), 257, q.data());
  double mean = 0;
  for (const float v : x) mean += double(std::fabs(v)) / 257.0;
  EXPECT_NEAR(info.inv_scale, mean / std::sqrt(7.0), 1e-6);
  int32_t sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(q[i], int(std::clamp(std::nearbyint(x[i] * (1.0f / info.inv_scale)), -8.0f, 7.0f))) << i;
    sum += q[i];
  }
  EXPECT_EQ(info.sum, sum);
  quantize_row_absmax(x.data(), 257, dense.data());
  info = quantize_row_topk(x.data(), 257, 100, q.data());
  std::vector<float> magnitudes;
  for (const float v : x) magnitudes.push_back(std::fabs(v));
  std::sort(magnitudes.rbegin(), magnitudes.rend());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(q[i], std::fabs(x[i]) >= magnitudes[99] ? dense[i] : 0);
  EXPECT_EQ(info.sum, std::accumulate(q.begin(), q.end(), 0));
  const std::vector<float> equal(5, 1.0f);
  quantize_row_topk(equal.data(), 5, 2, q.data());
  EXPECT_EQ((std::vector<int8_t>(q.begin(), q.begin() + 5)), (std::vector<int8_t>{127, 127, 0, 0, 0}));
}

TEST(Scheme, TextsAreReadAndRefused) {
  EXPECT_EQ(parse_scheme("keep")->kind, SchemeKind::kKeep);
  EXPECT_EQ(parse_scheme("absmean")->stored, DType::kI2_S);
  EXPECT_EQ(parse_scheme("lsq:per=row")->stored, DType::kIQ2_BN);
  EXPECT_EQ(parse_scheme("twn:group=64")->stored, DType::kQ2_0);
  EXPECT_EQ(parse_scheme("learned:group=256,store=tq1_0")->ternary.group_cols, 256);
  EXPECT_EQ(parse_scheme("q4_k")->stored, DType::kQ4_K);
  EXPECT_EQ(parse_scheme("q1_0")->kind, SchemeKind::kBinary);
  const auto integers = parse_scheme("int3:per=column,asym,search,stochastic=9,rotate=64,store=f16");
  ASSERT_TRUE(integers) << integers.error().message;
  EXPECT_EQ(integers->integers.bits, 3);
  EXPECT_EQ(integers->integers.granularity, Granularity::kColumn);
  EXPECT_FALSE(integers->integers.symmetric);
  EXPECT_EQ(*integers->integers.stochastic_seed, 9u);
  EXPECT_EQ(integers->rotate, 64);
  EXPECT_NEAR(nominal_bits(*parse_scheme("int4:group=32"), 64, 64), 4.5, 1e-12);
  EXPECT_NEAR(nominal_bits(*parse_scheme("q4_0"), 64, 64), 4.5, 1e-12);
  for (const char* bad : {"", "int9", "int0", "q7", "absmean:", "absmean:per=column", "absmean:per=row,store=i2_s",
                          "q4_0:group=32", "int4:rotate=3", "int4:store=q4_0", "lsq:group=100", "int4:bogus",
                          "keep:x=1", "tq1_0", "int4:group=0", "int4:stochastic=x"}) {
    EXPECT_FALSE(parse_scheme(bad)) << bad;
  }
}

TEST(Scheme, EveryKindIsStoredAsItSays) {
  const std::vector<float> x = normals(8 * 512, 12);
  double previous = 1e9;
  // From coarse to fine: the error falls.
  for (const char* text : {"q1_0", "absmean", "lsq", "lsq:group=64", "q2_k", "q3_k", "q4_0", "q5_1", "q6_k", "q8_0",
                           "bf16", "f16", "f32"}) {
    const auto scheme = parse_scheme(text);
    ASSERT_TRUE(scheme) << text;
    const auto bytes = quantize_by_scheme(*scheme, x, 8, 512);
    ASSERT_TRUE(bytes) << text << ": " << bytes.error().message;
    EXPECT_EQ(bytes->size(), *tensor_bytes(scheme->stored, {8, 512})) << text;
    std::vector<float> back(x.size());
    ASSERT_TRUE(dequantize_stored(scheme->stored, *bytes, 8, 512, back.data()));
    ErrorMeter meter;
    meter.add(x, back);
    EXPECT_LT(meter.metrics().mse, previous * 1.0001) << text;
    previous = meter.metrics().mse;
  }
  EXPECT_EQ(previous, 0.0);
}

TEST(Scheme, RotationHelpsWhereThereAreOutliers) {
  std::vector<float> x = normals(64 * 256, 13);
  for (size_t row = 0; row < 64; ++row) x[row * 256 + row * 3] = 1.0f;
  const auto error_of = [&](const char* text) {
    std::vector<float> back(x.size());
    const auto scheme = *parse_scheme(text);
    EXPECT_TRUE(dequantize_stored(scheme.stored, *quantize_by_scheme(scheme, x, 64, 256), 64, 256, back.data()));
    ErrorMeter meter;
    meter.add(x, back);
    return meter.metrics().mse;
  };
  EXPECT_LT(error_of("int4:per=row,rotate=256"), 0.5 * error_of("int4:per=row"));
}

}  // namespace
}  // namespace bitnet
