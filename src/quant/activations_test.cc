#include "quant/activations.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace bitnet {
namespace {

TEST(Activations, FollowTheFormula) {
  const CounterRng rng(1);
  for (const int64_t n : {1, 7, 256, 6912}) {
    std::vector<float> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) x[i] = float(rng.normal(i)) * 3.0f;
    std::vector<int8_t> q(x.size());
    const QuantizedRowInfo info = quantize_row_absmax(x.data(), n, q.data());
    float absmax = 0;
    for (const float v : x) absmax = std::max(absmax, std::fabs(v));
    const float scale = 127.0f / absmax;
    EXPECT_EQ(info.inv_scale, 1.0f / scale);
    int sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(q[i], int(std::nearbyint(x[i] * scale))) << i;
      sum += q[i];
    }
    EXPECT_EQ(info.sum, sum);
  }
}

TEST(Activations, RoundHalvesToEven) {
  const std::vector<float> x = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -126.5f};
  std::vector<int8_t> q(x.size());
  EXPECT_EQ(quantize_row_absmax(x.data(), 8, q.data()).inv_scale, 1.0f);
  EXPECT_EQ(q, (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2, -126}));
}

TEST(Activations, SmallAndZeroRowsUseTheFloor) {
  const std::vector<float> zeros(5, 0.0f), small = {1e-6f, -1e-6f};
  std::vector<int8_t> q(5, 3);
  const QuantizedRowInfo info = quantize_row_absmax(zeros.data(), 5, q.data());
  EXPECT_EQ(info.sum, 0);
  EXPECT_EQ(info.inv_scale, 1.0f / (127.0f / 1e-5f));
  EXPECT_EQ(q, std::vector<int8_t>(5, 0));
  quantize_row_absmax(small.data(), 2, q.data());
  EXPECT_EQ(q[0], 13);  // 12.7
  EXPECT_EQ(q[1], -13);
}

}  // namespace
}  // namespace bitnet
