#include "runtime/prompt_lookup.h"

#include "bitnet/generate.h"
#include "runtime/test_models.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

using Ids = std::vector<int32_t>;

Ids proposal(PromptLookup& lookup, const Ids& ids, int64_t room = 100) {
  const auto draft = lookup.propose(ids, room);
  return {draft.begin(), draft.end()};
}

TEST(PromptLookup, ProposesWhatFollowedBefore) {
  PromptLookup lookup(8);
  EXPECT_EQ(proposal(lookup, {1, 2, 3, 4, 5, 6, 7, 8, 1, 2}), (Ids{3, 4, 5, 6}));
  EXPECT_EQ(proposal(lookup, {1, 2, 3, 4, 5, 6, 7, 8, 1, 2}, 2), (Ids{3, 4}));
  EXPECT_EQ(proposal(lookup, {1, 2, 3, 4, 5, 6, 7, 8, 1, 2}, 0), Ids());
  // The last occurrence, and more in common before less.
  EXPECT_EQ(proposal(lookup, {1, 2, 7, 7, 7, 7, 1, 2, 8, 9, 9, 8, 1, 2}), (Ids{8, 9, 9, 8}));
  EXPECT_EQ(proposal(lookup, {5, 1, 2, 7, 7, 7, 7, 1, 2, 8, 9, 9, 5, 1, 2}), (Ids{7, 7, 7, 7}));
  for (const Ids& ids : {Ids(), Ids{1}, Ids{1, 1}, Ids{1, 2, 3, 4, 5}, Ids{1, 9, 2, 1}}) {
    EXPECT_EQ(proposal(lookup, ids), Ids());
  }
}

TEST(PromptLookup, ShortPeriodsGoOn) {
  PromptLookup lookup(8);
  EXPECT_EQ(proposal(lookup, {4, 4, 4, 4}), (Ids{4, 4, 4, 4}));
  EXPECT_EQ(proposal(lookup, {1, 2, 3, 1, 2, 3, 1, 2}), (Ids{3, 1, 2, 3}));
}

TEST(PromptLookup, DraftsFollowTheirSuccess) {
  PromptLookup lookup(20);
  const Ids ids(50, 3);
  for (const size_t length : {4u, 8u, 16u, 20u, 20u}) {
    EXPECT_EQ(proposal(lookup, ids).size(), length);
    lookup.report(int64_t(length));
  }
  lookup.report(0);
  EXPECT_EQ(proposal(lookup, ids).size(), 2u);
  PromptLookup off(0);
  EXPECT_EQ(proposal(off, ids), Ids());
}

struct Outcome {
  Ids ids, in_session;
  std::string text;
  StopReason stop;
  bool operator==(const Outcome&) const = default;
};

// With drafts everything comes out as without, callbacks included.
class Drafts : public testing::TestWithParam<HeadMode> {
 protected:
  Outcome run(const GenerateOptions& options, const Ids& prompt, int64_t cancel_after = -1, int64_t n_ctx = 0) const {
    Session session = new_session(model_, 256, 2, KvType::kF16, n_ctx);
    int64_t n_told = 0;
    const auto output =
        generate(session, prompt, options, [&](int32_t, std::string_view) { return ++n_told != cancel_after; });
    EXPECT_TRUE(output);
    return {output->ids, Ids(session.ids().begin(), session.ids().end()), output->text, output->stop};
  }
  const TinyVocabulary vocabulary_{2};
  const Model model_ = load_tiny("bitnet-packed", vocabulary_.folder(), GetParam());
};
INSTANTIATE_TEST_SUITE_P(Heads, Drafts, testing::Values(HeadMode::kFull, HeadMode::kCertified));

TEST_P(Drafts, ChangeNothing) {
  Ids prompt = random_ids(12, 512);
  for (int i = 0; i < 2; ++i) prompt.insert(prompt.end(), prompt.begin(), prompt.begin() + 12);
  GenerateOptions options;
  options.ignore_eos = true;
  for (const float temperature : {0.0f, 0.3f, 1.0f}) {
    for (const float penalty : {1.0f, 1.2f}) {
      options.sampling.temperature = temperature;
      options.sampling.repeat_penalty = penalty;
      for (const int64_t n : {0, 1, 7, 90}) {
        options.max_new_tokens = n;
        options.max_draft = 0;
        const Outcome expected = run(options, prompt);
        for (const int64_t max_draft : {1, 5, 32}) {
          options.max_draft = max_draft;
          EXPECT_TRUE(run(options, prompt) == expected) << "temperature " << temperature << ", draft " << max_draft;
        }
      }
    }
  }
}

TEST_P(Drafts, EndWhereOneTokenAtATimeEnds) {
  const Ids prompt(20, 77);
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = 80;
  options.ignore_eos = true;
  const Outcome whole = run(options, prompt);
  // A stop string from the middle of the text, the end of the context, a caller who has enough.
  for (const size_t at : {size_t{3}, whole.text.size() / 2, whole.text.size() - 3}) {
    options.stop = {whole.text.substr(at, 2)};
    if (options.stop[0].empty() || (uint8_t(options.stop[0][0]) & 0xc0) == 0x80) continue;
    options.max_draft = 0;
    const Outcome expected = run(options, prompt);
    options.max_draft = 16;
    EXPECT_TRUE(run(options, prompt) == expected) << at;
  }
  options.stop.clear();
  for (const int64_t n_ctx : {21, 40, 64}) {
    options.max_draft = 0;
    const Outcome expected = run(options, prompt, -1, n_ctx);
    EXPECT_EQ(expected.stop, StopReason::kContext);
    options.max_draft = 16;
    EXPECT_TRUE(run(options, prompt, -1, n_ctx) == expected) << n_ctx;
  }
  for (const int64_t cancel_after : {1, 2, 9, 33}) {
    options.max_draft = 0;
    const Outcome expected = run(options, prompt, cancel_after);
    options.max_draft = 16;
    EXPECT_TRUE(run(options, prompt, cancel_after) == expected) << cancel_after;
  }
}

TEST_P(Drafts, RefusesAnImpossibleLength) {
  GenerateOptions options;
  Session session = new_session(model_);
  for (const int64_t bad : {int64_t{-1}, kMaxDraft + 1}) {
    options.max_draft = bad;
    const auto output = generate(session, Ids{1}, options);
    ASSERT_FALSE(output);
    EXPECT_NE(output.error().message.find("max_draft"), std::string::npos);
  }
}

}  // namespace
}  // namespace bitnet
