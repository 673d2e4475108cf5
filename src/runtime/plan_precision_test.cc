#include "runtime/plan_precision.h"

#include "base/rng.h"
#include "runtime/test_models.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace bitnet {
namespace {

PlannedWeight weight_of(std::vector<SchemeEffect> schemes) {
  PlannedWeight weight;
  weight.schemes = std::move(schemes);
  return weight;
}

// All combinations.
double least_loss(const std::vector<PlannedWeight>& weights, uint64_t budget, size_t at = 0) {
  if (at == weights.size()) return 0.0;
  double best = std::numeric_limits<double>::infinity();
  for (const SchemeEffect& effect : weights[at].schemes) {
    if (effect.bytes > budget) continue;
    best = std::min(best, effect.kl + least_loss(weights, budget - effect.bytes, at + 1));
  }
  return best;
}

TEST(ChooseSchemes, IsTheBestOfAllCombinations) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const CounterRng rng(seed);
    std::vector<PlannedWeight> weights;
    uint64_t largest = 0, at = 0;
    for (int i = 0; i < 6; ++i) {
      std::vector<SchemeEffect> schemes;
      for (int k = 0; k < 4; ++k) {
        const uint64_t bytes = 1 + rng.bits(at) % 300;
        schemes.push_back({"s", bytes, rng.uniform(at + 1000)});
        ++at;
        largest += bytes;
      }
      weights.push_back(weight_of(schemes));
    }
    const uint64_t budget = 100 + rng.bits(5000) % (largest / 3);  // small: every byte is a unit
    const auto chosen = choose_schemes(weights, budget);
    const double best = least_loss(weights, budget);
    ASSERT_EQ(bool(chosen), best < 1e9) << seed;
    if (!chosen) continue;
    double loss = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      loss += weights[i].schemes[(*chosen)[i]].kl;
      bytes += weights[i].schemes[(*chosen)[i]].bytes;
    }
    EXPECT_LE(bytes, budget);
    EXPECT_NEAR(loss, best, 1e-12) << seed;
  }
}

TEST(PlanPrecision, KeepsWhatIsFreeAndFitsTheBudget) {
  const std::string path = std::string(BITNET_SOURCE_DIR) + "/models/storyteller-29m.gguf";
  PlanOptions options;
  std::vector<int32_t> ids;
  for (int i = 0; i < 64; ++i) ids.push_back((i * 37 + 11) % 8192);
  options.ids = ids;
  options.n_ctx = 64;
  options.linears = {*parse_scheme("absmean:store=tq1_0")};
  for (const char* text : {"q8_0", "q4_0", "q2_k"}) options.tables.push_back(*parse_scheme(text));
  options.budget_bytes = 5308416 + 4456448 + 200000;  // tq1_0 linears, a q8_0 table, norms
  const auto plan = plan_precision(path, options);
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->weights.size(), 57u);
  EXPECT_LE(plan->bytes, options.budget_bytes);
  const auto& table = plan->weights.front();
  EXPECT_EQ(table.name, "token_embd.weight");
  ASSERT_EQ(table.schemes.size(), 3u);
  EXPECT_EQ(table.choice().scheme, "q8_0");
  EXPECT_LT(table.schemes[0].kl, table.schemes[1].kl);
  EXPECT_LT(table.schemes[1].kl, table.schemes[2].kl);
  for (size_t i = 1; i < plan->weights.size(); ++i) EXPECT_EQ(plan->weights[i].choice().kl, 0.0);
  options.budget_bytes = 1000000;
  EXPECT_FALSE(plan_precision(path, options));
}

}  // namespace
}  // namespace bitnet
