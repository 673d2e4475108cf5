#include "tokenizer/test_vocabulary.h"

namespace bitnet {
namespace {

using namespace testing_support;

std::vector<std::string> streamed(StreamDecoder decoder, const std::vector<int32_t>& ids) {
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.emplace_back(decoder.push(id));
  parts.emplace_back(decoder.finish());
  return parts;
}

using Parts = std::vector<std::string>;

Tokenizer bytes_tokenizer() { return must_make(byte_level_vocabulary("gpt-2", {{"\xf0", "\x9f"}}, {"<s>"})); }
constexpr int32_t kHalf = 256, kSpecial = 257;

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = bytes_tokenizer();
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {'a', kHalf, 0x98, 0x80, 'b'}),
            (Parts{"a", "", "", "\U0001f600", "b", ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {0xc3, 0xa9, 0xe2, 0x82, 0xac}),
            (Parts{"", "\u00e9", "", "", "\u20ac", ""}));
}

TEST(StreamDecoder, BrokenSequencesBecomeOneReplacementEach) {
  const Tokenizer tokenizer = bytes_tokenizer();
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {kHalf, 'b'}), (Parts{"",
                                                                     "\ufffd"
                                                                     "b",
                                                                     ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {0xff, 0x80}), (Parts{"\ufffd", "\ufffd", ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {0xe2, 0xe2, 0x82, 0xac}), (Parts{"", "\ufffd", "", "\u20ac", ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {0xed, 0xa0}), (Parts{"", "\ufffd\ufffd", ""}));  // a surrogate
}

TEST(StreamDecoder, FinishGivesWhatIsLeft) {
  const Tokenizer tokenizer = bytes_tokenizer();
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {'a', kHalf, 0x98}), (Parts{"a", "", "", "\ufffd"}));
  StreamDecoder decoder(tokenizer);
  decoder.push(kHalf);
  EXPECT_EQ(decoder.finish(), "\ufffd");
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_EQ(decoder.push('x'), "x");
}

TEST(StreamDecoder, SpecialTokensAsAsked) {
  const Tokenizer tokenizer = bytes_tokenizer();
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {kSpecial, 'a', kSpecial}), (Parts{"", "a", "", ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer, true), {kSpecial, 'a'}), (Parts{"<s>", "a", ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {0xc3, kSpecial, 0xa9}), (Parts{"", "", "\u00e9", ""}));
}

TEST(StreamDecoder, UnknownIdsGiveNothing) {
  const Tokenizer tokenizer = bytes_tokenizer();
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {-1, 258, INT32_MAX, 'a'}), (Parts{"", "", "", "a", ""}));
}

TEST(StreamDecoder, SpaceInFrontIsDroppedOnceUnlessTextGoesOn) {
  const Tokenizer tokenizer = must_make(sentencepiece_vocabulary({{"\u2581", -3}, {"a", -2}, {"\u2581a", -1}}));
  const int32_t a = 261;
  EXPECT_EQ(streamed(StreamDecoder(tokenizer), {1, a, a}), (Parts{"", "a", " a", ""}));
  EXPECT_EQ(streamed(StreamDecoder(tokenizer, false, true), {a, a}), (Parts{" a", " a", ""}));
  EXPECT_EQ(must_decode(tokenizer, {1, a, a}, false), "a a");
}

TEST(Decode, RefusesIdsOutsideTheVocabulary) {
  const Tokenizer tokenizer = bytes_tokenizer();
  for (const int32_t id : {-1, 258, INT32_MAX, INT32_MIN}) {
    const auto text = tokenizer.decode(std::vector<int32_t>{'a', id});
    ASSERT_FALSE(text);
    EXPECT_NE(text.error().message.find("position 1"), std::string::npos) << text.error().message;
    EXPECT_EQ(tokenizer.token_bytes(id), "");
    EXPECT_EQ(tokenizer.token_text(id), "");
    EXPECT_FALSE(tokenizer.is_special(id));
    EXPECT_FALSE(tokenizer.is_stop(id));
  }
  EXPECT_EQ(must_decode(tokenizer, {kHalf}), "\xf0\x9f");  // bytes as they are
}

}  // namespace
}  // namespace bitnet
