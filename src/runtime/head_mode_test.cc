#include "bitnet/generate.h"
#include "runtime/sampler.h"
#include "runtime/test_models.h"

#include <gtest/gtest.h>

// A certified head changes no text and no logit, whatever the sampling.
namespace bitnet {
namespace {

class HeadModes : public testing::TestWithParam<const char*> {
 protected:
  const Model full_ = load_tiny(GetParam(), {}, HeadMode::kFull);
  const Model certified_ = load_tiny(GetParam(), {}, HeadMode::kCertified);
};
INSTANTIATE_TEST_SUITE_P(Tiny, HeadModes, testing::Values("bitnet-packed", "bitnet-odd-shapes", "llama-wide-heads"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

std::vector<SamplingOptions> samplings() {
  std::vector<SamplingOptions> all(6);
  all[0].temperature = 0;
  all[1].top_k = 1;
  all[2].temperature = 1.5f;
  all[3].top_k = 0;  // every logit is wanted
  all[4].repeat_penalty = 1.3f;
  all[5].top_k = 300;
  for (SamplingOptions& options : all) options.seed = 5;
  return all;
}

TEST_P(HeadModes, GiveTheSameTokens) {
  const auto prompt = random_ids(9, full_.info().vocab_size);
  for (const SamplingOptions& sampling : samplings()) {
    GenerateOptions options;
    options.sampling = sampling;
    options.max_new_tokens = 40;
    Session with_full = new_session(full_), with_certified = new_session(certified_, 4, 2);
    const auto expected = generate(with_full, prompt, options), found = generate(with_certified, prompt, options);
    ASSERT_TRUE(expected && found);
    EXPECT_EQ(expected->ids, found->ids) << "temperature " << sampling.temperature << ", top_k " << sampling.top_k;
  }
}

TEST_P(HeadModes, LessMemoryUntilAllLogitsAreWanted) {
  EXPECT_LT(certified_.info().memory_bytes, full_.info().memory_bytes);
  const auto ids = random_ids(12, full_.info().vocab_size);
  Session with_full = new_session(full_), with_certified = new_session(certified_);
  ASSERT_TRUE(with_full.append(ids));
  with_certified.want_logits(1);
  ASSERT_TRUE(with_certified.append(ids));
  const int32_t best = argmax(with_full.logits());
  EXPECT_EQ(argmax(with_certified.logits()), best);
  EXPECT_EQ(with_certified.logits()[size_t(best)], with_full.logits()[size_t(best)]);
  // More are wanted now: the logits held do not do.
  with_certified.want_logits(0);
  ASSERT_TRUE(with_certified.append({}));
  EXPECT_EQ(copy(with_certified.logits()), copy(with_full.logits()));
}

TEST(SamplerNeeds, SoManyOfTheBestLogits) {
  SamplingOptions o;
  o.top_k = 17;
  EXPECT_EQ(Sampler::n_best(o), 17);
  o.presence_penalty = 0.1f;
  EXPECT_EQ(Sampler::n_best(o), 0);
  o.penalty_last_n = 0;
  o.temperature = 0;
  EXPECT_EQ(Sampler::n_best(o), 1);
}

}  // namespace
}  // namespace bitnet
