#include "base/half.h"
#include "kernels/test_support.h"

#include <cmath>
#include <limits>

namespace bitnet {
namespace {

BN_EVERY_ISA(TokenOps);

const int64_t kColumns[] = {1, 5, 15, 16, 17, 100, 256, 257, 704, 2560};

TEST_P(TokenOps, RmsNorm) {
  for (const int64_t n_cols : kColumns) {
    Floats x(7, n_cols, 3), want(7, n_cols), got(7, n_cols);
    const std::vector<float> weight = random_floats(n_cols, 4);
    reference_.rms_norm(*make_stream(reference_, 1, 7, n_cols), x.view(), weight, 1e-5f, want.view());
    const auto stream = make_stream(cpu_, 2, 7, n_cols);
    cpu_.rms_norm(*stream, x.view(), weight, 1e-5f, got.view());
    EXPECT_TRUE(same_bits(want.values, got.values)) << n_cols;
    cpu_.rms_norm(*stream, x.view(), weight, 1e-5f, x.view());
    EXPECT_TRUE(same_bits(want.values, x.values)) << "in place, " << n_cols;
  }
}

TEST_P(TokenOps, QuantizeEqualsTheScalarSpecification) {
  for (const int64_t n_cols : kColumns) {
    Floats x = difficult_rows(n_cols);
    Quantized want(7, n_cols), got(7, n_cols);
    std::fill(got.codes.begin(), got.codes.end(), int8_t{99});
    reference_.quantize(*make_stream(reference_, 1, 7, n_cols), x.view(), want.view);
    cpu_.quantize(*make_stream(cpu_, 2, 7, n_cols), x.view(), got.view);
    EXPECT_EQ(want.codes, got.codes) << n_cols;  // the zeros behind each row included
    EXPECT_EQ(want.sums, got.sums) << n_cols;
    EXPECT_TRUE(same_bits(want.inv_scales, got.inv_scales)) << n_cols;
  }
}

TEST_P(TokenOps, QuantizeRoundsTiesToEven) {
  Floats x(1, 6);
  x.values = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f};
  Quantized got(1, 6);
  cpu_.quantize(*make_stream(cpu_, 1, 1, 6), x.view(), got.view);
  EXPECT_EQ(std::vector<int8_t>(got.codes.begin(), got.codes.begin() + 6), (std::vector<int8_t>{127, 0, 2, 2, 0, -2}));
  EXPECT_EQ(got.sums[0], 129);
}

TEST_P(TokenOps, FakeQuantize) {
  for (const int64_t n_cols : kColumns) {
    Floats want = difficult_rows(n_cols), got = difficult_rows(n_cols);
    const MatrixView x{want.values.data(), 5, n_cols}, y{got.values.data(), 5, n_cols};
    Floats apart(5, n_cols);
    cpu_.fake_quantize(*make_stream(cpu_, 2, 7, n_cols), y, apart.view());
    reference_.fake_quantize(*make_stream(reference_, 1, 7, n_cols), x, x);
    cpu_.fake_quantize(*make_stream(cpu_, 2, 7, n_cols), y, y);
    for (std::vector<float>* values : {&want.values, &got.values}) values->resize(size_t(5 * n_cols));  // finite rows
    EXPECT_TRUE(same_bits(want.values, got.values)) << n_cols;
    EXPECT_TRUE(same_bits(want.values, apart.values)) << n_cols;
  }
}

TEST_P(TokenOps, RopeWholeAndPartial) {
  struct Case {
    int64_t head_dim, n_pairs;
  };
  for (const Case c : {Case{128, 64}, Case{100, 50}, Case{64, 16}, Case{80, 20}, Case{2, 1}}) {
    constexpr int64_t kTokens = 9, kFirst = 3;
    const std::vector<float> cos = random_floats(20 * c.n_pairs, 6), sin = random_floats(20 * c.n_pairs, 7);
    const RopeTable table = {cos.data(), sin.data(), 20, c.n_pairs};
    Floats want(kTokens, 3 * c.head_dim, 8), got(kTokens, 3 * c.head_dim, 8);
    reference_.rope(*make_stream(reference_, 1, kTokens, 1), want.view(), c.head_dim, table, kFirst);
    cpu_.rope(*make_stream(cpu_, 2, kTokens, 1), got.view(), c.head_dim, table, kFirst);
    EXPECT_TRUE(same_bits(want.values, got.values)) << c.head_dim << "/" << c.n_pairs;
  }
}

TEST_P(TokenOps, RopeRotatesPairs) {
  const float cos[2] = {0.0f, 1.0f}, sin[2] = {1.0f, 0.0f};  // a quarter turn of pair 0
  Floats x(1, 6);
  x.values = {1, 2, 3, 4, 5, 6};
  const auto stream = make_stream(cpu_, 1, 1, 6);
  cpu_.rope(*stream, x.view(), 6, {cos, sin, 1, 2}, 0);
  EXPECT_EQ(x.values, (std::vector<float>{-3, 2, 1, 4, 5, 6}));
}

TEST_P(TokenOps, GateAndAdd) {
  for (const int64_t n_cols : kColumns) {
    Floats gate(5, n_cols, 9), up(5, n_cols, 10), want(5, n_cols), got(5, n_cols);
    for (float& g : gate.values) g *= 30.0f;
    const auto reference_stream = make_stream(reference_, 1, 5, n_cols), stream = make_stream(cpu_, 2, 5, n_cols);
    for (const GateActivation activation : {GateActivation::kRelu2, GateActivation::kSilu}) {
      reference_.gate(*reference_stream, activation, gate.view(), up.view(), want.view());
      cpu_.gate(*stream, activation, gate.view(), up.view(), got.view());
      EXPECT_TRUE(same_bits(want.values, got.values)) << n_cols;
    }
    cpu_.gate(*stream, GateActivation::kSilu, gate.view(), up.view(), gate.view());
    EXPECT_TRUE(same_bits(want.values, gate.values)) << "in place, " << n_cols;
    reference_.add(*reference_stream, up.view(), want.view());
    cpu_.add(*stream, up.view(), got.view());
    EXPECT_TRUE(same_bits(want.values, got.values)) << n_cols;
  }
}

TEST_P(TokenOps, SiluOfSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  Floats gate(1, 18), up(1, 18), want(1, 18), got(1, 18);
  gate.values = {0,    -0.0f,    1,      -1,      88,     -88,   89,     -89, 104,
                 -104, infinity, 1e-30f, -1e-30f, 1e-45f, 3e38f, -3e38f, 20,  -20};
  std::fill(up.values.begin(), up.values.end(), 1.0f);
  reference_.gate(*make_stream(reference_, 1, 1, 18), GateActivation::kSilu, gate.view(), up.view(), want.view());
  cpu_.gate(*make_stream(cpu_, 1, 1, 18), GateActivation::kSilu, gate.view(), up.view(), got.view());
  EXPECT_TRUE(same_bits(want.values, got.values));
}

// Every float16 and the floats halfway between two, just below and just above: rounding to nearest even, subnormals,
// overflow to infinity.
TEST_P(TokenOps, StoredKeysRoundToNearestEven) {
  std::vector<float> values;
  for (uint32_t half = 0; half < 0x7c00u; ++half) {
    const float a = f16_to_f32(uint16_t(half)), b = half == 0x7bffu ? 65536.0f : f16_to_f32(uint16_t(half + 1));
    const float middle = a + (b - a) * 0.5f;
    for (const float v : {a, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) values.push_back(v);
  }
  const size_t n_positive = values.size();
  for (size_t i = 0; i < n_positive; ++i) values.push_back(-values[i]);
  const int64_t n = int64_t(values.size());
  const MatrixView view = {values.data(), 1, n};
  std::vector<uint16_t> want(size_t(2 * n)), got(size_t(2 * n));
  reference_.store_kv(*make_stream(reference_, 1, 1, 1), view, view,
                      {want.data(), want.data() + n, DType::kF16, 1, 1, n}, 0);
  cpu_.store_kv(*make_stream(cpu_, 1, 1, 1), view, view, {got.data(), got.data() + n, DType::kF16, 1, 1, n}, 0);
  EXPECT_EQ(want, got);
}

}  // namespace
}  // namespace bitnet
