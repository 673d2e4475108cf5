#include "bitnet/generate.h"

#include "runtime/test_models.h"

namespace bitnet {
namespace {

GenerateOptions greedy(int64_t max_new_tokens) {
  GenerateOptions options;
  options.max_new_tokens = max_new_tokens;
  options.sampling.temperature = 0;
  options.ignore_eos = true;
  return options;
}

std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<int32_t> ids_of(const Session& session) { return {session.ids().begin(), session.ids().end()}; }

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t k) { return i + k < text.size() ? uint8_t(text[i + k]) : 0; };
    const auto tail = [&](size_t k) { return (byte(k) & 0xc0) == 0x80; };
    if (byte(0) < 0x80) {
      i += 1;
    } else if (byte(0) >= 0xc2 && byte(0) < 0xe0 && tail(1)) {
      i += 2;
    } else if (byte(0) >= 0xe0 && byte(0) < 0xf0 && tail(1) && tail(2)) {
      i += 3;
    } else if (byte(0) >= 0xf0 && byte(0) < 0xf5 && tail(1) && tail(2) && tail(3)) {
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

class Generate : public testing::Test {
 protected:
  TinyVocabulary vocabulary_;
  // Of the tiny models this one says the most varied things.
  Model model_ = load_tiny("llama-divide", vocabulary_.folder());
};

TEST_F(Generate, GreedyEqualsTheArgmaxLoop) {
  const std::vector<int32_t> prompt = random_ids(12, 512);
  Session session = new_session(model_);
  const Result<Output> output = generate(session, prompt, greedy(20));
  ASSERT_TRUE(output) << output.error().message;
  Session by_hand = new_session(model_);
  ASSERT_TRUE(by_hand.append(prompt));
  std::vector<int32_t> expected;
  for (int i = 0; i < 20; ++i) {
    expected.push_back(argmax(by_hand.logits()));
    ASSERT_TRUE(by_hand.append({&expected.back(), 1}));
  }
  EXPECT_EQ(output->ids, expected);
  EXPECT_EQ(output->prompt_ids, prompt);
  EXPECT_EQ(output->stop, StopReason::kLength);
  EXPECT_EQ(ids_of(session), joined(prompt, expected));
  EXPECT_EQ(copy(session.logits()), copy(by_hand.logits()));
}

TEST_F(Generate, StreamedTextIsTheFinalTextAndAlwaysWholeUtf8) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Session session = new_session(model_);
    GenerateOptions options = greedy(60);
    options.sampling = SamplingOptions();
    options.sampling.temperature = 3;
    options.sampling.seed = seed;
    std::string streamed;
    std::vector<int32_t> ids;
    const Result<Output> output =
        generate(session, random_ids(5, 512, seed), options, [&](int32_t id, std::string_view text) {
          EXPECT_TRUE(is_utf8(text));
          streamed += text;
          if (id >= 0) ids.push_back(id);
          return true;
        });
    ASSERT_TRUE(output);
    EXPECT_EQ(streamed, output->text);
    EXPECT_EQ(ids, output->ids);
    EXPECT_GT(output->text.size(), 30u);
  }
}

TEST_F(Generate, TheSeedFixesTheTextWhateverTheThreadsAndChunks) {
  GenerateOptions options = greedy(40);
  options.sampling = SamplingOptions();
  options.sampling.seed = 42;
  Session one = new_session(model_, 256, 1), other = new_session(model_, 3, 4);
  const std::vector<int32_t> prompt = random_ids(30, 512);
  const Output a = *generate(one, prompt, options), b = *generate(other, prompt, options);
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.text, b.text);
  options.sampling.seed = 43;
  one.reset();
  EXPECT_NE(generate(one, prompt, options)->ids, a.ids);
}

TEST_F(Generate, ContinuingEqualsOneLongRun) {
  const std::vector<int32_t> prompt = random_ids(9, 512);
  Session whole = new_session(model_), parts = new_session(model_);
  const Output expected = *generate(whole, prompt, greedy(24));
  const Output first = *generate(parts, prompt, greedy(10));
  const Output second = *generate(parts, std::span<const int32_t>(), greedy(7));
  ASSERT_TRUE(parts.truncate(parts.n_past()));  // drops the logits only
  const Output third = *generate(parts, "", greedy(7));
  EXPECT_TRUE(second.prompt_ids.empty());
  EXPECT_TRUE(third.prompt_ids.empty());
  EXPECT_EQ(joined(joined(first.ids, second.ids), third.ids), expected.ids);
}

TEST_F(Generate, EndsWhenTheContextIsFull) {
  for (const int64_t max_new_tokens : {int64_t{-1}, int64_t{100}}) {
    Session session = new_session(model_, 16, 1, KvType::kF16, 32);
    const Result<Output> output = generate(session, random_ids(20, 512), greedy(max_new_tokens));
    ASSERT_TRUE(output);
    EXPECT_EQ(output->stop, StopReason::kContext);
    EXPECT_EQ(output->ids.size(), 12u);
    EXPECT_EQ(session.n_past(), 32);
    const Result<Output> again = generate(session, std::span<const int32_t>(), greedy(1));
    ASSERT_TRUE(again);
    EXPECT_EQ(again->stop, StopReason::kContext);
    EXPECT_TRUE(again->ids.empty());
  }
}

TEST_F(Generate, ALengthThatJustFitsIsLengthNotContext) {
  Session session = new_session(model_, 16, 1, KvType::kF16, 32);
  EXPECT_EQ(generate(session, random_ids(20, 512), greedy(12))->stop, StopReason::kLength);
  session.reset();
  const Output none = *generate(session, random_ids(32, 512), greedy(0));
  EXPECT_EQ(none.stop, StopReason::kLength);
  EXPECT_TRUE(none.ids.empty());
  EXPECT_EQ(session.n_past(), 32);
}

TEST_F(Generate, RefusesAPromptThatDoesNotFit) {
  Session session = new_session(model_, 16, 1, KvType::kF16, 32);
  const Result<Output> output = generate(session, random_ids(33, 512), greedy(1));
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(output.error().message.find("33 tokens do not fit: the context has 32"), std::string::npos);
  EXPECT_EQ(session.n_past(), 0);
}

TEST_F(Generate, EndsBeforeAStopStringHoweverTokensCutIt) {
  Session session = new_session(model_);
  const std::vector<int32_t> prompt = random_ids(6, 512);
  const Output free = *generate(session, prompt, greedy(40));
  ASSERT_GT(free.text.size(), 30u);
  int n_cases = 0;
  for (size_t begin = 5; begin + 6 < free.text.size(); begin += 3) {
    const std::string stop = free.text.substr(begin, 6);
    if ((uint8_t(stop[0]) & 0xc0) == 0x80) continue;
    session.reset();
    GenerateOptions options = greedy(40);
    options.stop = {"never in the text", stop};
    std::string streamed;
    const Output output = *generate(session, prompt, options, [&](int32_t, std::string_view text) {
      streamed += text;
      return true;
    });
    EXPECT_EQ(output.stop, StopReason::kStop);
    EXPECT_EQ(output.text, free.text.substr(0, free.text.find(stop)));
    EXPECT_EQ(streamed, output.text);
    EXPECT_EQ(ids_of(session), joined(prompt, output.ids));
    EXPECT_TRUE(std::equal(output.ids.begin(), output.ids.end(), free.ids.begin()));
    ++n_cases;
  }
  EXPECT_GT(n_cases, 3);
}

TEST_F(Generate, EndsAtAStopTokenWhichIsNotPartOfAnything) {
  const std::vector<int32_t> prompt = random_ids(6, 512);
  Session session = new_session(model_);
  const std::vector<int32_t> free = generate(session, prompt, greedy(30))->ids;
  // The vocabulary whose end-of-text is the last new token of this run.
  size_t at = 0;
  for (size_t i = 1; i < free.size(); ++i) {
    if (free[i] != 1 && std::find(free.begin(), free.begin() + long(i), free[i]) == free.begin() + long(i)) at = i;
  }
  ASSERT_GT(at, 0u);
  const TinyVocabulary vocabulary(free[at]);
  const Model model = load_tiny("llama-divide", vocabulary.folder());
  Session ending = new_session(model);
  GenerateOptions options = greedy(30);
  options.ignore_eos = false;
  const Output output = *generate(ending, prompt, options);
  EXPECT_EQ(output.stop, StopReason::kEos);
  EXPECT_EQ(output.ids, std::vector<int32_t>(free.begin(), free.begin() + long(at)));
  EXPECT_EQ(ending.n_past(), int64_t(prompt.size() + at));
  ending.reset();
  EXPECT_EQ(generate(ending, prompt, greedy(30))->ids, free);
}

TEST_F(Generate, TextPromptsBeginWithBosOnlyAtTheStart) {
  Session session = new_session(model_);
  const Output first = *generate(session, "abc", greedy(2));
  ASSERT_EQ(first.prompt_ids.size(), 4u);
  EXPECT_EQ(first.prompt_ids[0], 1);
  const Output second = *generate(session, "abc", greedy(2));
  EXPECT_EQ(second.prompt_ids, std::vector<int32_t>(first.prompt_ids.begin() + 1, first.prompt_ids.end()));
  session.reset();
  GenerateOptions options = greedy(2);
  options.add_bos = false;
  EXPECT_EQ(generate(session, "abc", options)->prompt_ids, second.prompt_ids);
}

TEST_F(Generate, SpecialTokensInAPromptAreTextUnlessAskedFor) {
  Session session = new_session(model_);
  GenerateOptions options = greedy(1);
  EXPECT_EQ(generate(session, "<|end|>", options)->prompt_ids.size(), 8u);  // begin, then 7 bytes
  session.reset();
  options.parse_special = true;
  EXPECT_EQ(generate(session, "<|end|>", options)->prompt_ids, (std::vector<int32_t>{1, 2}));
}

TEST_F(Generate, AnEmptyPromptStartsFromBos) {
  Session session = new_session(model_);
  const Output text = *generate(session, "", greedy(5));
  EXPECT_EQ(text.prompt_ids, std::vector<int32_t>{1});
  session.reset();
  const Output ids = *generate(session, std::span<const int32_t>(), greedy(5));
  EXPECT_EQ(ids.prompt_ids, std::vector<int32_t>{1});
  EXPECT_EQ(ids.ids, text.ids);
}

TEST_F(Generate, TheCallbackCanCancel) {
  Session session = new_session(model_);
  int n_calls = 0;
  const Output output =
      *generate(session, random_ids(5, 512), greedy(50), [&](int32_t, std::string_view) { return ++n_calls < 4; });
  EXPECT_EQ(output.stop, StopReason::kCancelled);
  EXPECT_EQ(n_calls, 4);
  EXPECT_EQ(output.ids.size(), 4u);
  EXPECT_EQ(session.n_past(), 9);
}

TEST_F(Generate, AStopRequestCancels) {
  Session session = new_session(model_);
  const Output output = *generate(session, random_ids(5, 512), greedy(50), [&](int32_t, std::string_view) {
    session.request_stop();
    return true;
  });
  EXPECT_EQ(output.stop, StopReason::kCancelled);
  EXPECT_EQ(output.ids.size(), 1u);
  session.reset();
  session.request_stop();
  const Output at_once = *generate(session, random_ids(5, 512), greedy(50));
  EXPECT_EQ(at_once.stop, StopReason::kCancelled);
  EXPECT_TRUE(at_once.ids.empty());
  EXPECT_EQ(session.n_past(), 0);
  EXPECT_EQ(generate(session, random_ids(5, 512), greedy(5))->stop, StopReason::kLength);
}

TEST_F(Generate, RefusesBadOptionsBeforeTouchingTheSession) {
  Session session = new_session(model_);
  const auto refused = [&](auto change) {
    GenerateOptions options = greedy(5);
    change(options);
    const Result<Output> output = generate(session, random_ids(5, 512), options);
    return !output && output.error().code == ErrorCode::kInvalidArgument && session.n_past() == 0;
  };
  EXPECT_TRUE(refused([](auto& o) { o.max_new_tokens = -2; }));
  EXPECT_TRUE(refused([](auto& o) { o.sampling.top_p = 2; }));
  EXPECT_TRUE(refused([](auto& o) { o.stop = {""}; }));
}

TEST(GenerateWithoutVocabulary, RunsOnIdsAndSaysSoForText) {
  const Model model = load_tiny("llama-divide");
  ASSERT_EQ(model.tokenizer(), nullptr);
  Session session = new_session(model);
  const Result<Output> text = generate(session, "hello", greedy(5));
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(text.error().message.find("no vocabulary"), std::string::npos);
  EXPECT_NE(text.error().suggestion.find("token ids"), std::string::npos);
  EXPECT_FALSE(generate(session, std::span<const int32_t>(), greedy(5)));
  GenerateOptions with_stop = greedy(5);
  with_stop.stop = {"x"};
  EXPECT_FALSE(generate(session, random_ids(5, 512), with_stop));

  int n_calls = 0;
  const Result<Output> output =
      generate(session, random_ids(5, 512), greedy(5), [&](int32_t id, std::string_view piece) {
        EXPECT_GE(id, 0);
        EXPECT_TRUE(piece.empty());
        return ++n_calls > 0;
      });
  ASSERT_TRUE(output);
  EXPECT_EQ(n_calls, 5);
  EXPECT_EQ(output->ids.size(), 5u);
  EXPECT_TRUE(output->text.empty());
}

TEST(StopReasonName, IsWhatJsonPrints) {
  EXPECT_STREQ(stop_reason_name(StopReason::kLength), "length");
  EXPECT_STREQ(stop_reason_name(StopReason::kEos), "eos");
  EXPECT_STREQ(stop_reason_name(StopReason::kStop), "stop");
  EXPECT_STREQ(stop_reason_name(StopReason::kContext), "context");
  EXPECT_STREQ(stop_reason_name(StopReason::kCancelled), "cancelled");
}

}  // namespace
}  // namespace bitnet
