#include "tokenizer/split_rules.h"

#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bitnet {
namespace {

std::vector<std::string> pieces(const std::string& name, const std::string& text) {
  std::vector<std::string> out;
  PreTokenizer(PreTokenizer::find(name)->rules)
      .for_each_piece(text.data(), 0, text.size(), [&](size_t begin, size_t end) {
        out.push_back(text.substr(begin, end - begin));
        return true;
      });
  return out;
}

using Pieces = std::vector<std::string>;

// Expected pieces in this file are those of the published regular expressions in an independent engine (Python regex).
TEST(SplitRules, Gpt2) {
  EXPECT_EQ(pieces("gpt-2", "Hello, y'all! It's 'RE 123abc"),
            (Pieces{"Hello", ",", " y", "'", "all", "!", " It", "'s", " '", "RE", " 123", "abc"}));
  EXPECT_EQ(pieces("gpt-2", "a  b\t\tc \n\n d  "), (Pieces{"a", " ", " b", "\t", "\t", "c", " \n\n", " d", "  "}));
  EXPECT_EQ(pieces("gpt-2", "we'll've ''s"), (Pieces{"we", "'ll", "'ve", " ''", "s"}));
}

TEST(SplitRules, Llama3) {
  EXPECT_EQ(pieces("llama-bpe", "Hello, y'all! It's 'RE 12345abc"),
            (Pieces{"Hello", ",", " y", "'all", "!", " It", "'s", " '", "RE", " ", "123", "45", "abc"}));
  EXPECT_EQ(pieces("llama-bpe", "a  b\t\tc \n\n d  "), (Pieces{"a", " ", " b", "\t", "\tc", " \n\n", " d", "  "}));
  EXPECT_EQ(pieces("llama-bpe", "x !?\r\n\r\ny\r\n z"), (Pieces{"x", " !?\r\n\r\n", "y", "\r\n", " z"}));
  EXPECT_EQ(pieces("llama-bpe", "'Sx 'Tool 'vEry"), (Pieces{"'S", "x", " '", "Tool", " '", "vEry"}));
  EXPECT_EQ(pieces("llama-bpe", "'\u017foup"), (Pieces{"'\u017f", "oup"}));
  EXPECT_EQ(pieces("llama-bpe", " \n  \n   x"), (Pieces{" \n  \n", "  ", " x"}));
}

TEST(SplitRules, Qwen2TakesDigitsOneByOne) { EXPECT_EQ(pieces("qwen2", "ab 123"), (Pieces{"ab", " ", "1", "2", "3"})); }

TEST(SplitRules, FalconAndDefault) {
  EXPECT_EQ(pieces("falcon", "a `b` 12345 x=1"), (Pieces{"a", " ", "`", "b", "`", " ", "123", "45", " x", "=", "1"}));
  EXPECT_EQ(pieces("default", "a `b` 12345 x=1"), (Pieces{"a", " `", "b", "`", " ", "123", "45", " x", "=", "1"}));
}

TEST(SplitRules, StarcoderTakesNumbersOneByOne) {
  EXPECT_EQ(pieces("starcoder", "ab 12 \u00bdx"), (Pieces{"ab", " ", "1", "2", " ", "\u00bd", "x"}));
}

TEST(SplitRules, DeepseekCoder) {
  EXPECT_EQ(pieces("deepseek-coder", "int x1=22;\n\n  \u00e9\u4e2d\u6587a"),
            (Pieces{"int", " x", "1", "=", "2", "2", ";", "\n", "\n", " ", " \u00e9", "\u4e2d\u6587", "a"}));
}

TEST(SplitRules, DeepseekLlm) {
  EXPECT_EQ(pieces("deepseek-llm", "Hi \u4e2d\u6587!  12\n "),
            (Pieces{"Hi", " ", "\u4e2d\u6587", "!", "  ", "12", "\n", " "}));
}

// U+3000 is white space and one of the symbols.
TEST(SplitRules, DeepseekLlmIdeographicSpace) {
  EXPECT_EQ(pieces("deepseek-llm", "\u3000\u4e2d\u3000!\u3000\u3000a"),
            (Pieces{"\u3000", "\u4e2d", "\u3000", "!", "\u3000", "\u3000", "a"}));
}

// Bytes that are not UTF-8 count as symbols one by one; no piece loses or reorders any.
TEST(SplitRules, InvalidBytesAreSymbols) {
  EXPECT_EQ(pieces("gpt-2", "a\xff\xfe b\xc3"), (Pieces{"a", "\xff\xfe", " b", "\xc3"}));
  EXPECT_EQ(pieces("llama-bpe", "\xf4\x90\x80\x80"), (Pieces{"\xf4\x90\x80\x80"}));  // above U+10FFFF
  EXPECT_EQ(pieces("gpt-2", std::string("a\0b", 3)), (Pieces{"a", std::string("\0", 1), "b"}));
}

// The digests are those of the pieces' ends, in bytes, that the published expressions give in Python's regex module.
TEST(SplitRules, RandomTextsAsAnotherEngineCutsThem) {
  const std::pair<const char*, uint64_t> digests[] = {
      {"gpt-2", 0xbbf284e5e3a87ea9},          {"llama-bpe", 0x31aed932d41cd27e},    {"qwen2", 0xf29a2f926a9f0ff6},
      {"starcoder", 0x0e252396b9d3bedf},      {"falcon", 0xe1a81692a332510e},       {"default", 0x07723a7eaec3fb23},
      {"deepseek-coder", 0x6f68f6bcab4f2efb}, {"deepseek-llm", 0x942809222e4b911d},
  };
  for (const auto& [name, expected] : digests) {
    testing_support::Digest digest;
    for (uint64_t i = 0; i < 5000; ++i) {
      std::vector<size_t> ends;
      for (const std::string& piece : pieces(name, testing_support::random_text(i))) {
        ends.push_back((ends.empty() ? 0 : ends.back()) + piece.size());
      }
      digest.add(ends);
    }
    EXPECT_EQ(digest.value(), expected) << name;
  }
}

TEST(SplitRules, EveryRuleCoversAllBytesOfHardTexts) {
  const char* names[] = {"gpt-2",     "llama-bpe",    "qwen2",          "falcon",
                         "starcoder", "deepseek-llm", "deepseek-coder", "default"};
  std::string every_class;
  for (uint32_t c = 0; c < 0x11000; c += 7) append_utf8(every_class, c);
  const std::string texts[] = {"",         " ",        "'", "'l", "\n", " \n", "' ", "'re'", std::string(1000, ' '),
                               "\xe2\x80", every_class};
  for (const char* name : names) {
    for (const std::string& text : texts) {
      std::string joined;
      for (const std::string& piece : pieces(name, text)) {
        EXPECT_FALSE(piece.empty());
        joined += piece;
      }
      EXPECT_EQ(joined, text) << name;
    }
  }
}

TEST(Unicode, ClassesOfKnownCharacters) {
  const CharClasses& classes = CharClasses::get();
  const std::pair<uint32_t, CharClass> known[] = {{'a', CharClass::kLetter},
                                                  {'Z', CharClass::kLetter},
                                                  {'0', CharClass::kNumber},
                                                  {' ', CharClass::kSpace},
                                                  {'\n', CharClass::kSpace},
                                                  {0x85, CharClass::kSpace},
                                                  {0xa0, CharClass::kSpace},
                                                  {0x3000, CharClass::kSpace},
                                                  {'!', CharClass::kPunctuation},
                                                  {'$', CharClass::kSymbol},
                                                  {0x300, CharClass::kMark},
                                                  {0x4e2d, CharClass::kLetter},
                                                  {0xbd, CharClass::kNumber},
                                                  {0x1f600, CharClass::kSymbol},
                                                  {0x200b, CharClass::kOther},
                                                  {0, CharClass::kOther},
                                                  {0x10ffff, CharClass::kOther},
                                                  {0x110000, CharClass::kOther},
                                                  {0x20000, CharClass::kLetter},
                                                  {0x1d7ce, CharClass::kNumber},
                                                  {0xad, CharClass::kOther},
                                                  {0x2028, CharClass::kSpace},
                                                  {Utf8Char::kInvalid, CharClass::kOther}};
  for (const auto& [code_point, expected] : known) EXPECT_EQ(classes[code_point], expected) << code_point;
}

TEST(Unicode, Utf8OfEveryScalarValueReadsBack) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Char read = utf8_at(text.data(), 0, text.size());
    ASSERT_EQ(read.code_point, c);
    ASSERT_EQ(read.size_bytes, text.size());
    if (text.size() > 1) {
      ASSERT_EQ(utf8_at(text.data(), 0, text.size() - 1).code_point, Utf8Char::kInvalid);
      ASSERT_EQ(utf8_prefix_size(std::string_view(text).substr(0, text.size() - 1)), text.size() - 1);
    }
  }
}

TEST(Unicode, IllFormedSequencesAreOneByteEach) {
  for (const char* text : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    const Utf8Char read = utf8_at(text, 0, std::string_view(text).size());
    EXPECT_EQ(read.code_point, Utf8Char::kInvalid);
    EXPECT_EQ(read.size_bytes, 1u);
  }
  EXPECT_EQ(utf8_prefix_size("\xed\xa0\x80"), 1u);
  EXPECT_EQ(utf8_prefix_size("\xe2\x82"
                             "A"),
            2u);
  EXPECT_EQ(utf8_prefix_size("\x80"), 0u);
}

TEST(Unicode, ByteAlphabetIsOneToOne) {
  EXPECT_EQ(alphabet_from_bytes(" \n\xff"), "\u0120\u010a\u00ff");
  std::string all, back;
  for (int byte = 0; byte < 256; ++byte) all += char(byte);
  EXPECT_TRUE(bytes_from_alphabet(alphabet_from_bytes(all), back));
  EXPECT_EQ(back, all);
  EXPECT_FALSE(bytes_from_alphabet("a b", back));
  EXPECT_FALSE(bytes_from_alphabet("\u2581", back));
}

}  // namespace
}  // namespace bitnet
