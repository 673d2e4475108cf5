// tiktoken ranks, and which reader a file goes to.
#include "base/file.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/unicode.h"

#include <algorithm>

namespace bitnet {
namespace {

using namespace testing_support;
using Ids = std::vector<int32_t>;

std::string base64(const std::string& bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (j < n ? uint8_t(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out += j <= n ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

std::string tiktoken_file(const std::vector<std::string>& longer) {
  std::string out;
  for (int i = 0; i < 256; ++i) out += base64(std::string(1, char(i))) + " " + std::to_string(i) + "\n";
  for (size_t i = 0; i < longer.size(); ++i) out += base64(longer[i]) + " " + std::to_string(256 + i) + "\n";
  return out;
}

class Readers : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(write_file_atomically(folder_ / name, text));
    return folder_ / name;
  }
  TemporaryFolder folder_;
};

TEST_F(Readers, TiktokenMeansLlama3) {
  const auto tokenizer = Tokenizer::load(write("ranks", tiktoken_file({"ab", "bc", "abc", " ab"})));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocab_size(), 260 + 256);
  EXPECT_EQ(tokenizer->bos_id(), 260);
  EXPECT_EQ(tokenizer->eos_id(), 261);
  EXPECT_EQ(tokenizer->token_text(260), "<|begin_of_text|>");
  EXPECT_EQ(tokenizer->token_text(262), "<|reserved_special_token_0|>");
  EXPECT_EQ(tokenizer->token_text(265), "<|reserved_special_token_3|>");
  EXPECT_EQ(tokenizer->token_text(266), "<|start_header_id|>");
  EXPECT_EQ(tokenizer->token_text(268), "<|reserved_special_token_4|>");
  EXPECT_EQ(tokenizer->token_text(269), "<|eot_id|>");
  EXPECT_EQ(tokenizer->token_text(270), "<|reserved_special_token_5|>");
  EXPECT_EQ(tokenizer->token_text(515), "<|reserved_special_token_250|>");
  EXPECT_TRUE(tokenizer->is_stop(261));
  EXPECT_TRUE(tokenizer->is_stop(269));
  EXPECT_FALSE(tokenizer->is_stop(260));
  EXPECT_EQ(must_encode(*tokenizer, "abc ab abcd", false, true), (Ids{260, 258, 259, ' ', 258, 'd'}));
}

TEST_F(Readers, TiktokenWithAnotherPreTokenizer) {
  const auto tokenizer = Tokenizer::load(write("ranks", tiktoken_file({"ab"})), {"gpt-2"});
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_FALSE(Tokenizer::load(folder_ / "ranks", {"no-such"}));
}

TEST_F(Readers, TiktokenRefusesDamage) {
  const std::string good = tiktoken_file({});
  for (const char* bad : {"!!!! 256\n", "QUI= 257\n", "QUI= 1\n", "QUI 256\n", "QUI= \n", "QUI= 2x\n", "QUI=256\n",
                          "QUI= 256 \n", "= 256\n", "QQ== 256\n" /* "A" again */, "\n\n"}) {
    EXPECT_FALSE(vocabulary_from_tiktoken(write("ranks", good + bad))) << bad;
  }
  EXPECT_TRUE(vocabulary_from_tiktoken(write("ranks", good + "QUI= 256\r\n")));
  EXPECT_TRUE(vocabulary_from_tiktoken(write("ranks", good + "QUI= 256")));
}

TEST_F(Readers, UnknownFilesAreNamed) {
  for (const char* contents : {"", "hello", "<!DOCTYPE html>", "PK\x03\x04", "\x0a"}) {
    const auto tokenizer = Tokenizer::load(write("file", contents));
    ASSERT_FALSE(tokenizer) << contents;
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kInvalidInput);
  }
  EXPECT_FALSE(Tokenizer::load(folder_ / "missing"));
  EXPECT_FALSE(Tokenizer::load(folder_.path()));
  ASSERT_FALSE(Tokenizer::load("/dev/null"));
}

}  // namespace
}  // namespace bitnet
