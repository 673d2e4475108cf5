#include "runtime/stop_matcher.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bitnet {
namespace {

struct Case {
  std::vector<std::string> stops;
  std::string text;
  std::string expected;
  bool matched;
};

const std::vector<Case> kCases = {
    {{}, "anything", "anything", false},
    {{"x"}, "", "", false},
    {{"END"}, "the END of it", "the ", true},
    {{"END"}, "END", "", true},
    {{"END"}, "EN", "EN", false},
    {{"END"}, "EEND", "E", true},
    {{"END"}, "ENEND", "EN", true},
    {{"aab"}, "aaaab", "aa", true},
    {{"abab"}, "abaabab", "aba", true},
    {{"abcabd"}, "abcabcabd", "abc", true},
    {{"\n\n", "User:"}, "Hi.\nUser: what", "Hi.\n", true},
    {{"\n\n", "User:"}, "Hi.\n\nUser: what", "Hi.", true},
    {{"bc", "abcd"}, "xabcd", "xa", true},   // the first to be complete
    {{"cd", "abcd"}, "xabcd", "x", true},    // both end here: before the longer one
    {{"abcd", "bx"}, "abcbx", "abc", true},  // a near miss of one hides nothing of another
    {{"stop"}, "sto stop", "sto ", true},
    {{"é"}, "cafè, café", "cafè, caf", true},  // shares the first byte
    {{"日本"}, "日日本語", "日", true},
};

TEST(StopMatcher, FindsTheSameInPiecesOfAnySize) {
  for (const Case& c : kCases) {
    for (size_t piece = 1; piece <= c.text.size() + 1; ++piece) {
      StopMatcher matcher = *StopMatcher::create(c.stops);
      std::string got;
      for (size_t i = 0; i < c.text.size(); i += piece) got += matcher.push(std::string_view(c.text).substr(i, piece));
      got += matcher.finish();
      EXPECT_EQ(got, c.expected) << c.text << ", pieces of " << piece;
      EXPECT_EQ(matcher.matched(), c.matched) << c.text << ", pieces of " << piece;
    }
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher = *StopMatcher::create({"</s>"});
  EXPECT_EQ(matcher.push("one"), "one");
  EXPECT_EQ(matcher.push(" <"), " ");
  EXPECT_EQ(matcher.push("/"), "");
  EXPECT_EQ(matcher.push("b>"), "</b>");
  EXPECT_EQ(matcher.push("</s"), "");
  EXPECT_EQ(matcher.push("><"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FinishHandsOutWhatWasHeld) {
  StopMatcher matcher = *StopMatcher::create({"</s>"});
  EXPECT_EQ(matcher.push("a</"), "a");
  EXPECT_EQ(matcher.finish(), "</");
  EXPECT_EQ(matcher.finish(), "");
}

// Quadratic handling of the held text would take minutes here.
TEST(StopMatcher, LongStopsAndLongTextsTakeLinearTime) {
  const std::string stop = std::string(1 << 20, 'a') + "b";
  StopMatcher matcher = *StopMatcher::create({stop});
  size_t n = 0;
  for (int i = 0; i < 3 << 20; ++i) n += matcher.push("a").size();
  EXPECT_EQ(n, size_t(2) << 20);
  n += matcher.push("b").size();
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(n, size_t(2) << 20);
}

TEST(StopMatcher, RefusesStopsThatCannotBe) {
  const Result<StopMatcher> empty = StopMatcher::create({"ok", ""});
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code, ErrorCode::kInvalidArgument);
  const Result<StopMatcher> middle = StopMatcher::create({"\xa9"});
  ASSERT_FALSE(middle);
  EXPECT_NE(middle.error().message.find("0xa9"), std::string::npos);
}

}  // namespace
}  // namespace bitnet
