#include "runtime/observe_inputs.h"

#include "runtime/test_models.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace bitnet {
namespace {

TEST(ObserveInputs, EveryLinearSeesEveryTokenOnce) {
  std::vector<int32_t> ids(24);
  std::iota(ids.begin(), ids.end(), 1);
  for (const char* name : {"bitnet-packed", "llama-divide"}) {
    ObserveOptions options;
    options.ids = ids;
    options.n_ctx = 24;
    options.n_threads = 1;
    const auto statistics = observe_inputs(tiny_path(name), options);
    ASSERT_TRUE(statistics) << statistics.error().message;
    ASSERT_FALSE(statistics->empty());
    for (const InputStatistics& entry : *statistics) {
      EXPECT_EQ(entry.n_tokens, 23) << entry.weight;  // the last one predicts nothing
      EXPECT_EQ(entry.histogram.n(), 23 * entry.n_cols);
      const double mean_square =
          std::accumulate(entry.mean_squares.begin(), entry.mean_squares.end(), 0.0) / double(entry.n_cols);
      EXPECT_NEAR(mean_square, entry.histogram.mean_square(), 1e-9 + 1e-6 * mean_square) << entry.weight;
      EXPECT_GT(entry.int8.metrics().sqnr_db, 25.0) << entry.weight;
      EXPECT_LT(entry.int4.metrics().sqnr_db, entry.int8.metrics().sqnr_db) << entry.weight;
      // Squared ReLU leaves down fewer inputs than top-k keeps; elsewhere the rest is lost.
      const bool sparse = std::string(name) == "bitnet-packed" && entry.weight.find("ffn_down") != std::string::npos;
      if (sparse) {
        EXPECT_EQ(entry.topk.metrics().sqnr_db, entry.int8.metrics().sqnr_db) << entry.weight;
      } else {
        EXPECT_LT(entry.topk.metrics().sqnr_db, entry.int8.metrics().sqnr_db) << entry.weight;
      }
    }
    // q, k and v share an input.
    EXPECT_EQ((*statistics)[0].histogram.absmax(), (*statistics)[1].histogram.absmax());
  }
}

}  // namespace
}  // namespace bitnet
