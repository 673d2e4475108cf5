#include "kernels/bit_linear.h"

#include "base/rng.h"
#include "model/checkpoint.h"
#include "quant/activations.h"
#include "quant/blocks.h"
#include "train/bit_linear_training.h"
#include "train/core/plain_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace bitnet {
namespace {

std::vector<float> random_values(int64_t n, uint64_t seed, double scale) {
  const CounterRng rng(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(rng.normal(i) * scale);
  return values;
}
std::vector<uint8_t> random_codes(int64_t n, uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(rng.bits(i) % 3);
  return codes;
}
std::vector<float> outputs(BitLinear& layer, std::vector<float> x) {
  const int64_t n = int64_t(x.size()) / layer.d_in();
  std::vector<float> y(size_t(n * layer.d_out()), NAN);
  EXPECT_TRUE(layer.forward({x.data(), n, layer.d_in()}, {y.data(), n, layer.d_out()}).has_value());
  return y;
}
// numerics.md 1 to 3, a value at a time.
std::vector<float> by_definition(const std::vector<uint8_t>& codes, float alpha, int64_t d_in,
                                 const std::vector<float>& x) {
  const int64_t n = int64_t(x.size()) / d_in, d_out = int64_t(codes.size()) / d_in;
  std::vector<float> y;
  std::vector<int8_t> q(static_cast<size_t>(d_in));
  for (int64_t t = 0; t < n; ++t) {
    const QuantizedRowInfo info = quantize_row_absmax(x.data() + t * d_in, d_in, q.data());
    for (int64_t o = 0; o < d_out; ++o) {
      int64_t sum = 0;
      for (int64_t i = 0; i < d_in; ++i) sum += (int(codes[size_t(o * d_in + i)]) - 1) * q[size_t(i)];
      y.push_back((float(sum) * info.inv_scale) * alpha);
    }
  }
  return y;
}

TEST(BitLinear, EveryLayoutGivesTheDefinition) {
  constexpr int64_t kOut = 96, kIn = 768, kTokens = 5;
  const std::vector<float> x = random_values(kTokens * kIn, 2, 3.0);
  TernaryScales scales;
  scales.tensor = 0.03125f;  // 16 bits hold it
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    std::vector<uint8_t> codes = random_codes(kOut * kIn, 1);
    if (info.layout == TernaryLayout::kQ1_0) std::replace(codes.begin(), codes.end(), uint8_t{1}, uint8_t{0});
    const auto packed = encode_ternary(info.layout, kOut, kIn, codes, scales);
    ASSERT_TRUE(packed.has_value()) << packed.error().message;
    const TernaryView view = {info.layout, kOut, kIn, *packed, {}};
    const std::vector<float> want = by_definition(codes, scales.tensor, kIn, x);
    for (const char* device : {"cpu", "reference"}) {
      BitLinearOptions options;
      options.device = device;
      options.max_tokens = 2;  // 2 + 2 + 1
      auto layer = BitLinear::create(view, &scales, options);
      ASSERT_TRUE(layer.has_value()) << info.name << ": " << layer.error().message;
      EXPECT_EQ(outputs(*layer, x), want) << info.name << " on " << device;
    }
  }
}

TEST(BitLinear, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(BitLinear::create(3, 4, random_codes(11, 1), {}).has_value());
  EXPECT_FALSE(BitLinear::create(0, 4, {}, {}).has_value());
  EXPECT_FALSE(BitLinear::create(3, 4, random_codes(12, 1), {}, {.device = "tpu"}).has_value());
  EXPECT_FALSE(BitLinear::create(3, 4, random_codes(12, 1), {}, {.max_tokens = 0}).has_value());
  auto layer = BitLinear::create(3, 4, random_codes(12, 1), {});
  ASSERT_TRUE(layer.has_value());
  std::vector<float> x(8), y(6);
  EXPECT_FALSE(layer->forward({x.data(), 2, 4}, {y.data(), 1, 3}).has_value());
  EXPECT_FALSE(layer->forward({x.data(), 2, 3}, {y.data(), 2, 3}).has_value());
  EXPECT_TRUE(layer->forward({x.data(), 2, 4}, {y.data(), 2, 3}).has_value());
}

// The masters of a model that Hugging Face's implementation quantises as it runs: golden_test.cc holds the logits of
// these codes and scales to its own. The layer in training quantises to the same, and so do its outputs.
TEST(BitLinearTraining, QuantisesTheGoldenMastersAsTheReferenceDoes) {
  const std::string folder = std::string(BITNET_SOURCE_DIR) + "/tests/data/hf/bitnet-bf16-master";
  CheckpointOptions keep;
  keep.keep_latent = true;
  const auto masters = Checkpoint::open(folder, keep), quantized = Checkpoint::open(folder);
  ASSERT_TRUE(masters.has_value() && quantized.has_value());
  int n_layers = 0;
  for (const WeightSpec& spec : quantized->weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    SCOPED_TRACE(spec.hf_name);
    const int64_t d_out = spec.shape[0], d_in = spec.shape[1];
    const auto latent = masters->linear(spec), golden = quantized->linear(spec);
    ASSERT_TRUE(latent.has_value() && golden.has_value());
    const auto& floats = std::get<FloatSource>(latent->weight);
    const auto& ternary = std::get<TernarySource>(golden->weight);
    std::vector<std::byte> stored(*tensor_bytes(floats.dtype, spec.shape));
    ASSERT_TRUE(floats.read_rows(0, d_out, stored.data()).has_value());
    auto layer = BitLinearTraining::create(d_out, d_in, {});
    ASSERT_TRUE(layer.has_value());
    ASSERT_TRUE(dequantize(floats.dtype, stored, d_out * d_in, layer->weights().data()).has_value());
    ASSERT_TRUE(layer->prepare().has_value());
    std::vector<uint8_t> codes(size_t(d_out * d_in));
    ASSERT_TRUE(ternary.read_codes(0, d_out, codes.data()).has_value());
    EXPECT_TRUE(std::equal(codes.begin(), codes.end(), layer->codes().begin(), layer->codes().end()));
    EXPECT_EQ(layer->alpha(), ternary.scales.tensor);

    auto inference = layer->inference();
    ASSERT_TRUE(inference.has_value());
    std::vector<float> x = random_values(7 * d_in, 3, 1.0), y(size_t(7 * d_out));
    ASSERT_TRUE(layer->forward({x.data(), 7, d_in}, {y.data(), 7, d_out}).has_value());
    EXPECT_EQ(outputs(*inference, x), y);
    EXPECT_EQ(by_definition(codes, ternary.scales.tensor, d_in, x), y);
    ++n_layers;
  }
  EXPECT_GT(n_layers, 7);
}

double relative_error(std::span<const float> found, const std::vector<double>& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (double(found[i]) - expected[i]) * (double(found[i]) - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

// The plain loops in double are the definition of the gradients (train/core/plain_ops.h). In the exact form gradients
// are products of 16-bit integers, which docs/training.md bounds.
TEST(BitLinearTraining, GradientsGoStraightThroughTheQuantisers) {
  constexpr int64_t kOut = 45, kIn = 132, kTokens = 19;
  QuantizationOptions exact, grouped, half, learned, none;
  grouped.group_cols = 66;
  half.lambda = 0.5;
  learned.scale = WeightScale::kLearned;
  none.enabled = false;
  for (const QuantizationOptions& quantization : {exact, grouped, half, learned, none}) {
    BitLinearTrainingOptions options;
    options.quantization = quantization;
    options.max_tokens = kTokens;
    auto layer = BitLinearTraining::create(kOut, kIn, options);
    ASSERT_TRUE(layer.has_value());
    const std::vector<float> weights = random_values(kOut * kIn, 4, 0.05);
    std::copy(weights.begin(), weights.end(), layer->weights().begin());
    layer->step() = 0.05f;
    std::vector<float> x = random_values(kTokens * kIn, 5, 2.0), y(size_t(kTokens * kOut));
    std::vector<float> dy = random_values(kTokens * kOut, 6, 0.3), dx(size_t(kTokens * kIn));
    EXPECT_FALSE(layer->forward({x.data(), kTokens, kIn}, {y.data(), kTokens, kOut}).has_value());  // not prepared
    ASSERT_TRUE(layer->prepare().has_value());
    ASSERT_TRUE(layer->forward({x.data(), kTokens, kIn}, {y.data(), kTokens, kOut}).has_value());
    ASSERT_TRUE(layer->backward({dy.data(), kTokens, kOut}, {dx.data(), kTokens, kIn}).has_value());

    ThreadPool pool(1);
    PlainOps<double> plain(pool);
    plain.set_quantization(quantization);
    const double step = double(0.05f);
    std::vector<double> w(weights.begin(), weights.end()), xs(x.begin(), x.end()), dys(dy.begin(), dy.end());
    std::vector<double> ys(y.size()), dxs(dx.size()), dw(w.size());
    double dstep = 0;
    PlainOps<double>::Weight weight;
    PlainOps<double>::Input input;
    plain.prepare(w.data(), quantization.scale == WeightScale::kLearned ? &step : nullptr, kOut, kIn, weight);
    plain.quantize({xs.data(), kTokens, kIn}, input);
    plain.linear(input, weight, {ys.data(), kTokens, kOut});
    plain.linear_backward(input, weight, {dys.data(), kTokens, kOut}, {dxs.data(), kTokens, kIn}, false,
                          {dw.data(), &dstep});
    EXPECT_LT(relative_error(y, ys), 1e-5);
    EXPECT_LT(relative_error(dx, dxs), 1e-4);
    EXPECT_LT(relative_error(layer->gradients(), dw), 1e-4);
    if (quantization.scale == WeightScale::kLearned) {
      EXPECT_NEAR(layer->step_gradient() / dstep, 1.0, 1e-3);
    }
    EXPECT_EQ(layer->inference().has_value(), quantization.is_exact());
    // Gradients of weights add up.
    const std::vector<float> once(layer->gradients().begin(), layer->gradients().end());
    ASSERT_TRUE(layer->backward({dy.data(), kTokens, kOut}, {dx.data(), kTokens, kIn}).has_value());
    for (size_t i = 0; i < once.size(); ++i) ASSERT_FLOAT_EQ(layer->gradients()[i], 2 * once[i]);
  }
}

TEST(BitLinearTraining, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(BitLinearTraining::create(0, 4).has_value());
  EXPECT_FALSE(BitLinearTraining::create(4, 0).has_value());
  BitLinearTrainingOptions options;
  options.quantization.group_cols = 3;
  EXPECT_FALSE(BitLinearTraining::create(4, 4, options).has_value());
  options.quantization.group_cols = 0;
  options.max_tokens = 2;
  auto layer = BitLinearTraining::create(4, 4, options);
  ASSERT_TRUE(layer.has_value());
  ASSERT_TRUE(layer->prepare().has_value());
  std::vector<float> x(12), y(12);
  EXPECT_FALSE(layer->forward({x.data(), 3, 4}, {y.data(), 3, 4}).has_value());
  EXPECT_FALSE(layer->forward({x.data(), 2, 3}, {y.data(), 2, 4}).has_value());
  EXPECT_TRUE(layer->forward({x.data(), 2, 4}, {y.data(), 2, 4}).has_value());
  EXPECT_FALSE(layer->backward({y.data(), 1, 4}, {x.data(), 1, 4}).has_value());
}

}  // namespace
}  // namespace bitnet
