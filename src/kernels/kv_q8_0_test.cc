#include "base/half.h"
#include "kernels/test_support.h"
#include "quant/blocks.h"

#include <cmath>
#include <limits>

// The 8-bit cache: what is stored, and how far attention over it lies from attention over float32.
namespace bitnet {
namespace {

BN_EVERY_ISA(KvQ8_0);

constexpr int64_t kHeadDim = 96, kBlocks = kHeadDim / 32, kRowBytes = kBlocks * 34;

// One head's rows as store_kv() leaves them.
std::vector<uint8_t> stored(const Backend& backend, std::vector<float> values) {
  const int64_t n = int64_t(values.size()) / kHeadDim;
  std::vector<uint8_t> k(size_t(n * kRowBytes)), v(k.size());
  const KvLayer layer = {k.data(), v.data(), DType::kQ8_0, 1, n, kHeadDim};
  const MatrixView rows = {values.data(), n, kHeadDim};
  backend.store_kv(*make_stream(backend, 2, n, kHeadDim, n), rows, rows, layer, 0);
  EXPECT_EQ(k, v);
  return k;
}

std::vector<float> widened(const std::vector<uint8_t>& bytes) {
  std::vector<float> values(bytes.size() / 34 * 32);
  EXPECT_TRUE(dequantize(DType::kQ8_0, std::as_bytes(std::span(bytes)), int64_t(values.size()), values.data()));
  return values;
}

TEST_P(KvQ8_0, HalvesGoAwayFromZero) {
  std::vector<float> x(kHeadDim);
  const float below_half = std::nextafter(0.5f, 0.0f);
  const float first[] = {127.0f, 0.5f, -0.5f, 1.5f, 2.5f, -2.5f, below_half, -below_half, -126.5f, 125.49999f};
  std::copy(std::begin(first), std::end(first), x.begin());
  const std::vector<uint8_t> bytes = stored(cpu_, x);
  EXPECT_EQ(f16_to_f32(uint16_t(bytes[0] | bytes[1] << 8)), 1.0f);
  const int codes[] = {127, 1, -1, 2, 3, -3, 0, 0, -127, 125};
  for (size_t i = 0; i < std::size(codes); ++i) EXPECT_EQ(int(int8_t(bytes[2 + i])), codes[i]) << first[i];
}

TEST_P(KvQ8_0, StoresTheReferencesBytes) {
  std::vector<float> x = random_floats(400 * kHeadDim, 11);
  const float largest = std::numeric_limits<float>::max();
  const float special[] = {0.0f, -0.0f, 1e-44f, -3e-39f, 1e-36f, 6e-8f, 65504.0f, 9e6f, -largest, HUGE_VALF, NAN};
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / kHeadDim;
    if (row < 11) x[i] = i % 3 == 0 ? special[row] : x[i] * special[row];
    if (row >= 11 && row < 100) x[i] = std::round(x[i] * 40.0f) * 0.5f;  // many halves of a step
    if (row >= 100 && row < 200) x[i] *= std::ldexp(1.0f, int(row) - 160);
  }
  for (size_t row = 11; row < 100; ++row) x[row * kHeadDim] = x[row * kHeadDim + 40] = -127.0f;
  EXPECT_EQ(stored(reference_, x), stored(cpu_, x));
}

// Half a step, and the rounding of d to binary16 on up to 127 steps.
TEST_P(KvQ8_0, AValueIsWithinTheFormatsBound) {
  const std::vector<float> x = random_floats(200 * kHeadDim, 12), y = widened(stored(cpu_, x));
  double squares = 0, step_squares = 0;
  for (size_t block = 0; block < x.size() / 32; ++block) {
    double absmax = 0;
    for (size_t i = 0; i < 32; ++i) absmax = std::max(absmax, std::fabs(double(x[block * 32 + i])));
    for (size_t i = block * 32; i < block * 32 + 32; ++i) {
      const double error = double(y[i]) - double(x[i]);
      EXPECT_LE(std::fabs(error), absmax * (0.5 / 127 + 0x1p-11 + 0x1p-20)) << i;
      squares += error * error;
      step_squares += std::pow(absmax / 127, 2);
    }
  }
  // Uniform in a step: the mean square is a twelfth of it, and a little for d.
  EXPECT_NEAR(squares / step_squares, 1.0 / 12, 0.05 / 12);
}

// With e_k, e_v the bounds of a stored value: a score moves by at most s = sum|q| e_k / sqrt(d), a weight of the
// softmax by the factor exp(2 s), so the output by at most e_v + (exp(2 s) - 1) sum(p |v|).
TEST_P(KvQ8_0, AttentionIsWithinTheFormatsBoundOfFloat32) {
  constexpr int64_t kPositions = 50;
  const std::vector<float> k = random_floats(kPositions * kHeadDim, 13), v = random_floats(kPositions * kHeadDim, 14);
  Floats q(1, kHeadDim, 15), f32(1, kHeadDim), q8(1, kHeadDim), magnitude(1, kHeadDim);
  const auto attend = [&](DType dtype, std::vector<float> values, Floats& out) {
    std::vector<float> keys = k, k_memory(k.size()), v_memory(k.size());
    const KvLayer layer = {k_memory.data(), v_memory.data(), dtype, 1, kPositions, kHeadDim};
    const auto stream = make_stream(cpu_, 1, kPositions, kHeadDim, kPositions);
    cpu_.store_kv(*stream, {keys.data(), kPositions, kHeadDim}, {values.data(), kPositions, kHeadDim}, layer, 0);
    cpu_.attention(*stream, q.view(), layer, kPositions - 1, out.view());
  };
  std::vector<float> absolute = v;
  for (float& value : absolute) value = std::fabs(value);
  attend(DType::kF32, v, f32);
  attend(DType::kF32, absolute, magnitude);
  attend(DType::kQ8_0, v, q8);
  const auto value_bound = [](const std::vector<float>& values) {
    double largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(double(value)));
    return largest * (0.5 / 127 + 0x1p-11 + 0x1p-20);
  };
  double query = 0;
  for (const float value : q.values) query += std::fabs(double(value));
  const double moved = query * value_bound(k) / std::sqrt(double(kHeadDim));
  double largest = 0;
  for (size_t i = 0; i < kHeadDim; ++i) {
    const double error = std::fabs(double(q8.values[i]) - double(f32.values[i]));
    EXPECT_LE(error, value_bound(v) + std::expm1(2 * moved) * double(magnitude.values[i]) + 1e-6) << i;
    largest = std::max(largest, error);
  }
  EXPECT_GT(largest, 0) << "the cache type has no effect";
}

}  // namespace
}  // namespace bitnet
