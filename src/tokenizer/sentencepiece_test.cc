// SentencePiece vocabularies: merging by score, byte fallback, the space mark, and the reader of .model files.
#include "tokenizer/test_vocabulary.h"

#include "base/file.h"

#include <bit>
#include <limits>

namespace bitnet {
namespace {

using namespace testing_support;
using Ids = std::vector<int32_t>;

// Behind <unk> <s> </s> and the 256 bytes: 259 ▁, 260 a, 261 b, 262 c, 263 ▁a, 264 ab, 265 bc, 266 ▁ab, 267 ▁▁.
Vocabulary small(bool bytes = true) {
  return sentencepiece_vocabulary({{"\u2581", -9},
                                   {"a", -10},
                                   {"b", -11},
                                   {"c", -12},
                                   {"\u2581a", -3},
                                   {"ab", -2},
                                   {"bc", -1},
                                   {"\u2581ab", -4},
                                   {"\u2581\u2581", -5}},
                                  bytes);
}

TEST(SentencePiece, HighestScoreMergesFirst) {
  const Tokenizer tokenizer = must_make(small());
  EXPECT_EQ(must_encode(tokenizer, "ab"), Ids{266});
  EXPECT_EQ(must_encode(tokenizer, "abc"), (Ids{263, 265}));
  EXPECT_EQ(must_encode(tokenizer, "ab abc"), (Ids{266, 263, 265}));
  EXPECT_EQ(must_encode(tokenizer, " ab"), (Ids{259, 266}));
  EXPECT_EQ(must_encode(tokenizer, "b  ab"), (Ids{259, 261, 259, 266}));
  EXPECT_EQ(must_encode(tokenizer, ""), Ids{});
  EXPECT_EQ(must_encode(tokenizer, "ab", false, true), (Ids{1, 266}));
}

TEST(SentencePiece, EqualScoresGoLeftToRight) {
  Vocabulary v = small();
  v.scores[264] = v.scores[265] = -1;
  EXPECT_EQ(must_encode(must_make(v), "abc"), (Ids{266, 262}));
}

TEST(SentencePiece, WithoutSpacePrefix) {
  Vocabulary v = small();
  v.add_space_prefix = false;
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "ab ab"), (Ids{264, 266}));
  EXPECT_EQ(must_decode(tokenizer, must_encode(tokenizer, " ab")), " ab");
}

// A token such as "a▁b" forbids to cut the text in front of words.
TEST(SentencePiece, TokensAcrossWords) {
  Vocabulary v = sentencepiece_vocabulary({{"\u2581", -9}, {"a", -10}, {"b", -11}, {"a\u2581", -1}, {"a\u2581b", -2}});
  EXPECT_EQ(must_encode(must_make(v), "a b"), (Ids{259, 263}));
}

// "x" is no token, yet "xy" joins it with "y".
TEST(SentencePiece, CharactersThatAreNoTokenMerge) {
  const Tokenizer tokenizer = must_make(sentencepiece_vocabulary({{"\u2581", -9}, {"y", -10}, {"xy", -1}}));
  EXPECT_EQ(must_encode(tokenizer, "xyx"), (Ids{259, 261, 3 + 'x'}));
}

TEST(SentencePiece, BytesStandForUnknownCharacters) {
  const Tokenizer tokenizer = must_make(small());
  EXPECT_EQ(must_encode(tokenizer, "a\u00e9\xff"), (Ids{263, 3 + 0xc3, 3 + 0xa9, 3 + 0xff}));
  EXPECT_EQ(must_decode(tokenizer, {263, 3 + 0xc3, 3 + 0xa9, 3 + 0xff}), "a\u00e9\xff");
  EXPECT_EQ(tokenizer.token_bytes(3 + 0xff), "\xff");
  EXPECT_EQ(tokenizer.token_text(3 + 0xff), "<0xFF>");
}

TEST(SentencePiece, UnknownTokenWithoutBytes) {
  const Tokenizer tokenizer = must_make(small(false));
  EXPECT_EQ(must_encode(tokenizer, "zzab"), (Ids{3, 0, 8}));
  Vocabulary v = small(false);
  v.unk_id.reset();
  v.types[0] = TokenType::kControl;
  const auto made = make_tokenizer(v, "t");
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("no unknown token"), std::string::npos) << made.error().message;
}

TEST(SentencePiece, SpecialAndUserDefinedTokens) {
  Vocabulary v = small();
  v.tokens.push_back("<b>");
  v.types.push_back(TokenType::kUserDefined);
  v.scores.push_back(0);
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "ab<b>ab"), (Ids{266, 268, 266}));
  EXPECT_EQ(must_encode(tokenizer, "ab</s>ab", true), (Ids{266, 2, 266}));
  const Ids spelled = must_encode(tokenizer, "</s>");
  EXPECT_EQ(spelled, (Ids{259, 3 + '<', 3 + '/', 3 + 's', 3 + '>'}));
}

TEST(SentencePiece, DecodeDropsTheSpaceInFront) {
  const Tokenizer tokenizer = must_make(small());
  EXPECT_EQ(must_decode(tokenizer, {266, 266}), "ab ab");
  EXPECT_EQ(must_decode(tokenizer, {1, 266, 2}), "<s>ab</s>");
  EXPECT_EQ(must_decode(tokenizer, {1, 266, 2}, false), "ab");
  EXPECT_EQ(must_decode(tokenizer, must_encode(tokenizer, " ab", false, true), false), " ab");
}

// Merges listed by a tokenizer.json count as they are listed, not by score.
TEST(SentencePiece, ListedMergesCount) {
  Vocabulary v = small();
  v.merges = {{"a", "b"}, {"\u2581", "ab"}};
  EXPECT_EQ(must_encode(must_make(v), "abc"), (Ids{266, 262}));
}

TEST(SentencePiece, RefusesBadByteTokens) {
  for (const char* text : {"<0x-1>", "<0xZZ>", "<0x1>", "<0x0a>"}) {
    Vocabulary v = small();
    v.tokens[3 + 0x0a] = text;
    const auto made = make_tokenizer(v, "t");
    ASSERT_FALSE(made) << text;
    EXPECT_NE(made.error().message.find("marked as a byte"), std::string::npos) << made.error().message;
  }
  Vocabulary v = small();
  v.types[3 + 0x0a] = TokenType::kNormal;
  const auto made = make_tokenizer(v, "t");
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("<0x0A>"), std::string::npos) << made.error().message;
}

TEST(SentencePiece, RefusesScoresThatAreNoNumbers) {
  Vocabulary v = small();
  v.scores[260] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(make_tokenizer(v, "t"));
  v.scores.pop_back();
  EXPECT_FALSE(make_tokenizer(v, "t"));
}

// A writer of just enough protocol buffer for the tests.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  return out + char(value);
}
std::string number(int field, uint64_t value) { return varint(uint64_t(field) << 3) + varint(value); }
std::string bytes(int field, const std::string& value) {
  return varint(uint64_t(field) << 3 | 2) + varint(value.size()) + value;
}
std::string piece(const std::string& text, float score, TokenType type) {
  const uint32_t bits = std::bit_cast<uint32_t>(score);
  std::string fixed(4, '\0');
  for (int i = 0; i < 4; ++i) fixed[size_t(i)] = char(bits >> (8 * i));
  std::string message = bytes(1, text) + varint(2 << 3 | 5) + fixed;
  if (type != TokenType::kNormal) message += number(3, uint64_t(type));
  return bytes(1, message);
}
std::string model_file(const Vocabulary& v, uint64_t model_type, const std::string& normalizer) {
  std::string out;
  for (size_t id = 0; id < v.tokens.size(); ++id) out += piece(v.tokens[id], v.scores[id], v.types[id]);
  return out + bytes(2, number(3, model_type) + number(40, 0) + number(41, 1) + number(42, 2)) + bytes(3, normalizer);
}

class SentencePieceFile : public ::testing::Test {
 protected:
  Result<Tokenizer> load(const std::string& contents) {
    EXPECT_TRUE(write_file_atomically(folder_ / "tokenizer.model", contents));
    return Tokenizer::load(folder_ / "tokenizer.model");
  }
  TemporaryFolder folder_;
};

TEST_F(SentencePieceFile, ReadsWhatItHolds) {
  const Vocabulary v = small();
  const auto tokenizer = load(model_file(v, 2, bytes(1, "identity") + number(3, 1) + number(4, 0)));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const Vocabulary& read = vocabulary_of(*tokenizer);
  EXPECT_EQ(read.tokens, v.tokens);
  EXPECT_EQ(read.types, v.types);
  EXPECT_EQ(read.scores, v.scores);
  EXPECT_EQ(read.bos_id, 1);
  EXPECT_EQ(read.eos_id, 2);
  EXPECT_TRUE(read.add_space_prefix);
  EXPECT_EQ(must_encode(*tokenizer, "abc", false, true), (Ids{1, 263, 265}));
  EXPECT_EQ(tokenizer->description(), "SentencePiece BPE, 268 tokens");
}

TEST_F(SentencePieceFile, NormalizerFlags) {
  const auto tokenizer = load(model_file(small(), 2, number(3, 0) + number(4, 0)));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_FALSE(vocabulary_of(*tokenizer).add_space_prefix);
}

TEST_F(SentencePieceFile, RefusesWhatItCannotReproduce) {
  const std::string plain = number(4, 0);
  const std::pair<std::string, const char*> cases[] = {
      {model_file(small(), 1, plain), "unigram"},
      {model_file(small(), 3, plain), "word"},
      {model_file(small(), 2, plain + bytes(2, "map")), "character map"},
      {model_file(small(), 2, ""), "remove_extra_whitespaces"},
      {model_file(small(), 2, plain + number(5, 0)), "escape_whitespaces"},
  };
  for (const auto& [contents, expected] : cases) {
    const auto tokenizer = load(contents);
    ASSERT_FALSE(tokenizer) << expected;
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(tokenizer.error().message.find(expected), std::string::npos) << tokenizer.error().message;
  }
}

TEST_F(SentencePieceFile, RefusesDamage) {
  const std::string whole = model_file(small(), 2, number(4, 0));
  for (size_t size = 0; size < whole.size(); size += 37) EXPECT_FALSE(load(whole.substr(0, size))) << size;
  EXPECT_FALSE(load(whole + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
  EXPECT_FALSE(load(whole + bytes(1, bytes(1, ""))));                // an empty piece
  EXPECT_FALSE(load(whole + piece("a", 0, TokenType::kNormal)));     // twice
  EXPECT_FALSE(load(whole + piece("\xff", 0, TokenType::kNormal)));  // not UTF-8
  EXPECT_FALSE(load(whole + piece("new", 0, TokenType(9))));         // no such type
}

}  // namespace
}  // namespace bitnet
