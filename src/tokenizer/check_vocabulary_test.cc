// What every reader ends with, on vocabularies that do not hold together. The errors name the file, the token and what
// was expected.
#include "tokenizer/test_vocabulary.h"

#include <limits>

namespace bitnet {
namespace {

using namespace testing_support;

void refuses(const Vocabulary& v, const std::string& expected, ErrorCode code = ErrorCode::kInvalidInput) {
  const Status status = check_vocabulary(v, "FILE");
  ASSERT_FALSE(status) << expected;
  EXPECT_EQ(status.error().code, code);
  EXPECT_EQ(status.error().message, "FILE: " + expected);
  EXPECT_FALSE(make_tokenizer(v, "FILE"));
}

Vocabulary good() { return byte_level_vocabulary("gpt-2", {{"h", "e"}}, {"<s>"}); }

TEST(CheckVocabulary, Tokens) {
  EXPECT_TRUE(check_vocabulary(good(), "FILE"));
  Vocabulary v = good();
  v.tokens[256] = "";
  refuses(v, "token 256 is empty");
  v.tokens[256] = "h";
  refuses(v, "tokens 104 and 256 are both spelled \"h\"");
  v.tokens[256] = "h\xff";
  const Status status = check_vocabulary(v, "FILE");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("is not UTF-8"), std::string::npos) << status.error().message;
  refuses(Vocabulary(), "the vocabulary has no tokens");
}

TEST(CheckVocabulary, TypesAndScores) {
  for (const int32_t type : {0, 7, -1, std::numeric_limits<int32_t>::max()}) {
    Vocabulary v = good();
    v.types[256] = TokenType(type);
    refuses(v, "token 256 (\"he\") has type " + std::to_string(type) + ", expected 1 to 6");
  }
  Vocabulary v = good();
  v.types.pop_back();
  refuses(v, "257 token types for 258 tokens");
  v = good();
  v.scores.assign(258, 0);
  refuses(v, "258 token scores for 258 tokens");
  v = sentencepiece_vocabulary({{"a", 0}});
  v.scores[259] = std::numeric_limits<float>::quiet_NaN();
  refuses(v, "the score of token 259 is not a number");
}

TEST(CheckVocabulary, Ids) {
  for (const int32_t id : {-1, 258, std::numeric_limits<int32_t>::max()}) {
    const std::string outside = " token id " + std::to_string(id) + " lies outside the vocabulary of 258 tokens";
    Vocabulary v = good();
    v.bos_id = id;
    refuses(v, "the begin-of-text" + outside);
    v = good();
    v.stop_ids = {0, id};
    refuses(v, "the stop" + outside);
    v = good();
    v.rstrip_ids = {id};
    refuses(v, "the added" + outside);
  }
}

TEST(CheckVocabulary, PreTokenizer) {
  Vocabulary v = good();
  v.pre = "tekken";
  const Status status = check_vocabulary(v, "FILE");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(status.error().message.find("known are llama-bpe"), std::string::npos) << status.error().message;
}

TEST(CheckVocabulary, AddedTokensAreShort) {
  Vocabulary v = good();
  v.tokens[257] = std::string(256, 'x');
  EXPECT_TRUE(make_tokenizer(v, "FILE"));
  v.tokens[257] += 'x';
  const auto made = make_tokenizer(v, "FILE");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace bitnet
