#include "runtime/sampler.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Everything off: a draw from the plain softmax.
SamplingOptions plain() {
  SamplingOptions o;
  o.temperature = 1;
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  return o;
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(float(std::log(p)));
  return logits;
}

std::vector<int32_t> kept_ids(const SamplingOptions& options, const std::vector<float>& logits) {
  Sampler sampler = *Sampler::create(options, int64_t(logits.size()));
  EXPECT_TRUE(sampler.sample(logits, {}));
  std::vector<int32_t> ids;
  for (const Sampler::Candidate& c : sampler.candidates()) ids.push_back(c.id);
  return ids;
}

int32_t greedy(const std::vector<float>& logits, const std::vector<int32_t>& history, SamplingOptions options) {
  options.temperature = 0;
  Sampler sampler = *Sampler::create(options, int64_t(logits.size()));
  const Result<int32_t> id = sampler.sample(logits, history);
  return id ? *id : -1;
}

using Ids = std::vector<int32_t>;

TEST(Sampler, GreedyTakesTheLowestIdOnTies) {
  EXPECT_EQ(greedy({1, 3, 2, 3}, {}, plain()), 1);
  EXPECT_EQ(greedy({-5, -kInf, -5}, {}, plain()), 0);
  EXPECT_EQ(greedy({-kInf, -7}, {}, plain()), 1);
}

TEST(Sampler, TopKKeepsExactlyK) {
  SamplingOptions o = plain();
  const std::vector<float> logits = {0, 5, 1, 5, 3, 5};
  o.top_k = 1;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1}));
  o.top_k = 2;  // three share the first place: the lower ids win
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3}));
  o.top_k = 4;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3, 4, 5}));
  o.top_k = 6;
  EXPECT_EQ(kept_ids(o, logits), (Ids{0, 1, 2, 3, 4, 5}));
  o.top_k = 1000;
  EXPECT_EQ(kept_ids(o, logits), (Ids{0, 1, 2, 3, 4, 5}));
}

TEST(Sampler, TopKAboveTheHeapEqualsASort) {
  const CounterRng rng(7);
  std::vector<float> logits(5000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = float(rng.bits(i) % 700);  // many ties
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = int32_t(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  for (const int k : {1, 40, 512, 513, 1000, 4999}) {
    SamplingOptions o = plain();
    o.top_k = k;
    Ids expected(order.begin(), order.begin() + k);
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(kept_ids(o, logits), expected) << "k = " << k;
  }
}

TEST(Sampler, TopPKeepsTheShortestRunThatReachesIt) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.05, 0.3, 0.15});
  SamplingOptions o = plain();
  o.top_p = 0;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1}));
  o.top_p = 0.39f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1}));
  o.top_p = 0.41f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3}));
  o.top_p = 0.69f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3}));
  o.top_p = 0.84f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3, 4}));
  o.top_p = 0.96f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{0, 1, 2, 3, 4}));
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  // Of 0.4 + 0.3 the first has 0.571: 0.5 is reached by it alone, 0.6 is not.
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.05, 0.3, 0.15});
  SamplingOptions o = plain();
  o.top_k = 2;
  o.top_p = 0.5f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1}));
  o.top_p = 0.6f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3}));
}

TEST(Sampler, TopPOverManyTokensSortsPastTheFirstBlock) {
  const std::vector<float> flat(4000, 1.0f);
  SamplingOptions o = plain();
  o.top_p = 0.5f;
  const Ids kept = kept_ids(o, flat);
  ASSERT_EQ(kept.size(), 2000u);
  EXPECT_EQ(kept.front(), 0);
  EXPECT_EQ(kept.back(), 1999);
}

TEST(Sampler, MinPIsRelativeToTheMostLikely) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.05, 0.3, 0.15});
  SamplingOptions o = plain();
  o.min_p = 0.24f;  // of 0.4: 0.096
  EXPECT_EQ(kept_ids(o, logits), (Ids{0, 1, 3, 4}));
  o.min_p = 0.26f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 3, 4}));
  o.min_p = 1;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1}));
}

TEST(Sampler, FiltersSeeTheTemperaturesDistribution) {
  const std::vector<float> logits = {0, 1, 2};
  SamplingOptions o = plain();
  o.min_p = 0.3f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{1, 2}));  // exp(-1) = 0.37, exp(-2) = 0.14
  o.temperature = 0.5f;
  EXPECT_EQ(kept_ids(o, logits), (Ids{2}));
  o.temperature = 2;
  EXPECT_EQ(kept_ids(o, logits), (Ids{0, 1, 2}));
}

TEST(Sampler, RepeatPenaltyPullsBothSignsDown) {
  SamplingOptions o = plain();
  o.repeat_penalty = 2;
  EXPECT_EQ(greedy({4, 3, 1}, {0}, o), 1);       // 4 / 2 < 3
  EXPECT_EQ(greedy({4, 1.5, 1}, {0}, o), 0);     // 4 / 2 > 1.5
  EXPECT_EQ(greedy({-1, -1.5, -9}, {0}, o), 1);  // -1 * 2 < -1.5
  EXPECT_EQ(greedy({4, 3, 1}, {0, 0, 0}, o), 1);
  EXPECT_EQ(greedy({9, 3, 1}, {0, 0, 0}, o), 0);  // once, however often the token came
}

TEST(Sampler, FrequencyAndPresencePenalties) {
  SamplingOptions o = plain();
  o.frequency_penalty = 1;
  EXPECT_EQ(greedy({4, 2.5, 0}, {0}, o), 0);     // 4 - 1
  EXPECT_EQ(greedy({4, 2.5, 0}, {0, 0}, o), 1);  // 4 - 2
  o.frequency_penalty = 0;
  o.presence_penalty = 1;
  EXPECT_EQ(greedy({4, 2.5, 0}, {0, 0}, o), 0);  // 4 - 1
  o.presence_penalty = 2;
  EXPECT_EQ(greedy({4, 2.5, 0}, {0}, o), 1);
  o.presence_penalty = -3;
  EXPECT_EQ(greedy({4, 2.5, 0}, {1}, o), 1);
}

TEST(Sampler, PenaltiesLookAtTheLastN) {
  SamplingOptions o = plain();
  o.presence_penalty = 10;
  const Ids history = {0, 1, 2, 2, 2};
  o.penalty_last_n = 3;
  EXPECT_EQ(greedy({3, 2, 9, 1}, history, o), 0);
  o.penalty_last_n = 4;
  EXPECT_EQ(greedy({2, 3, 9, 1}, history, o), 0);
  o.penalty_last_n = -1;
  EXPECT_EQ(greedy({3, 2, 9, 1}, history, o), 3);
  o.penalty_last_n = 0;
  EXPECT_EQ(greedy({3, 2, 9, 1}, history, o), 2);
  o.penalty_last_n = 64;  // more than there are
  EXPECT_EQ(greedy({3, 2, 9, 1}, history, o), 3);
}

TEST(Sampler, PenaltiesLeaveNothingBehind) {
  SamplingOptions o = plain();
  o.temperature = 0;
  o.frequency_penalty = 1;
  Sampler sampler = *Sampler::create(o, 2);
  const std::vector<float> logits = {2.5f, 0};
  const Ids history = {0, 0};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(*sampler.sample(logits, history), 0);
}

TEST(Sampler, HugePenaltiesStayFinite) {
  SamplingOptions o = plain();
  o.frequency_penalty = std::numeric_limits<float>::max();
  EXPECT_EQ(greedy({3, 2}, {0, 0, 0}, o), 1);
  EXPECT_EQ(greedy({3, -kInf}, {0, 0, 0}, o), 0);
  o.frequency_penalty = -std::numeric_limits<float>::max();
  EXPECT_EQ(greedy({-kInf, 2, 3}, {0, 0, 1, 1}, o), 1);
}

// Draws n ids from a Zipf-like distribution and returns chi-square against `expected` probabilities.
double chi_square(Sampler& sampler, const std::vector<float>& logits, const std::vector<double>& expected, int n) {
  std::vector<int64_t> counts(logits.size());
  for (int i = 0; i < n; ++i) ++counts[size_t(*sampler.sample(logits, {}))];
  double chi = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
      continue;
    }
    const double mean = expected[i] * n;
    chi += (double(counts[i]) - mean) * (double(counts[i]) - mean) / mean;
  }
  return chi;
}

TEST(Sampler, DrawsFollowTheProbabilities) {
  std::vector<double> p(32);
  double total = 0;
  for (size_t i = 0; i < p.size(); ++i) total += p[i] = 1.0 / double((i * 7) % 32 + 1);
  for (double& v : p) v /= total;
  SamplingOptions o = plain();
  o.seed = 1234;
  Sampler sampler = *Sampler::create(o, 32);
  // 31 degrees of freedom: the 0.1 % point is 61.1, the 99.9 % point 11.9 (too good to be random).
  const double chi = chi_square(sampler, logits_of(p), p, 1000000);
  EXPECT_LT(chi, 61.1);
  EXPECT_GT(chi, 11.9);
}

TEST(Sampler, DrawsFollowTheTemperatureAndTopK) {
  const std::vector<double> p = {0.05, 0.3, 0.15, 0.25, 0.05, 0.2};
  SamplingOptions o = plain();
  o.temperature = 0.5f;  // squares the ratios
  o.top_k = 4;
  o.seed = 5;
  std::vector<double> expected = {0, 0.09, 0.0225, 0.0625, 0, 0.04};
  double total = 0;
  for (const double v : expected) total += v;
  for (double& v : expected) v /= total;
  Sampler sampler = *Sampler::create(o, 6);
  EXPECT_LT(chi_square(sampler, logits_of(p), expected, 200000), 16.3);  // 3 degrees of freedom, 0.1 %
}

TEST(Sampler, TheSeedFixesTheDraws) {
  const std::vector<float> logits(1000, 0.0f);
  const auto draws = [&](uint64_t seed) {
    SamplingOptions o = plain();
    o.seed = seed;
    Sampler sampler = *Sampler::create(o, 1000);
    Ids ids;
    for (int i = 0; i < 50; ++i) ids.push_back(*sampler.sample(logits, {}));
    return ids;
  };
  const Ids first = draws(1);
  EXPECT_EQ(first, draws(1));
  EXPECT_NE(first, draws(2));
  EXPECT_NE(first[0], first[1]);  // and each step draws anew (1 in 1000 to be equal by chance, the seed is fixed)
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const auto message = [](auto change) {
    SamplingOptions o;
    change(o);
    const Result<Sampler> sampler = Sampler::create(o, 10);
    if (sampler) return std::string("accepted");
    EXPECT_EQ(sampler.error().code, ErrorCode::kInvalidArgument);
    return sampler.error().message;
  };
  for (const float bad : {-1.0f, kNan, kInf, -kInf}) {
    EXPECT_NE(message([&](auto& o) { o.temperature = bad; }).find("temperature"), std::string::npos) << bad;
    EXPECT_NE(message([&](auto& o) { o.repeat_penalty = bad; }).find("repeat_penalty"), std::string::npos) << bad;
  }
  for (const float bad : {-0.1f, 1.1f, kNan, kInf}) {
    EXPECT_NE(message([&](auto& o) { o.top_p = bad; }).find("top_p"), std::string::npos) << bad;
    EXPECT_NE(message([&](auto& o) { o.min_p = bad; }).find("min_p"), std::string::npos) << bad;
  }
  for (const float bad : {kNan, kInf, -kInf}) {
    EXPECT_NE(message([&](auto& o) { o.frequency_penalty = bad; }).find("frequency"), std::string::npos) << bad;
    EXPECT_NE(message([&](auto& o) { o.presence_penalty = bad; }).find("presence"), std::string::npos) << bad;
  }
  EXPECT_NE(message([](auto& o) { o.repeat_penalty = 0; }).find("is 0, expected"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.top_k = -1; }).find("top_k is -1"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.penalty_last_n = -2; }).find("penalty_last_n is -2"), std::string::npos);
  EXPECT_EQ(message([](auto&) {}), "accepted");
  EXPECT_EQ(message([](auto& o) { o.temperature = 999999; }), "accepted");
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingOptions o = plain();
    o.temperature = temperature;
    Sampler sampler = *Sampler::create(o, 3);
    EXPECT_FALSE(sampler.sample(std::vector<float>{0, kNan, 1}, {}));
    EXPECT_FALSE(sampler.sample(std::vector<float>{0, kInf, 1}, {}));
    EXPECT_FALSE(sampler.sample(std::vector<float>{-kInf, -kInf, -kInf}, {}));
    EXPECT_FALSE(sampler.sample(std::vector<float>{0, 1}, {}));
    EXPECT_EQ(*sampler.sample(std::vector<float>{-kInf, 1, -kInf}, {}), 1);
  }
}

TEST(SamplerLargest, FindsTheFirstOfTheLargest) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const size_t n : {size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{1000}}) {
    const CounterRng rng(n);
    std::vector<float> logits(n);
    for (size_t i = 0; i < n; ++i) logits[i] = float(rng.bits(i) % 50) - 80;
    const auto expected = std::max_element(logits.begin(), logits.end());
    EXPECT_EQ(Sampler::largest(logits).id, expected - logits.begin());
    EXPECT_EQ(Sampler::largest(logits).logit, *expected);
    logits[n / 2] = nan;
    if (n > 1) {
      EXPECT_GT(Sampler::largest(logits).logit, -100);
    }
    std::fill(logits.begin(), logits.end(), -infinity);
    EXPECT_EQ(Sampler::largest(logits).id, 0);
  }
}

}  // namespace
}  // namespace bitnet
