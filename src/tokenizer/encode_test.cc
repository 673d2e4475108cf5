#include "tokenizer/test_vocabulary.h"
#include "tokenizer/unicode.h"

#include "base/rng.h"

#include <thread>

namespace bitnet {
namespace {

using namespace testing_support;
using Ids = std::vector<int32_t>;

// Ids 256 on: he, ll, hell, hello (by merges), " w".
Vocabulary hello(const std::string& pre = "gpt-2") {
  return byte_level_vocabulary(pre, {{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {" ", "w"}},
                               {"<s>", "</s>", "<|x|>"}, {"<b>", "<br>", "  "});
}
constexpr int32_t kBos = 261, kX = 263, kB = 264, kBr = 265, kTwoSpaces = 266;

TEST(Encode, MergesInOrder) {
  const Tokenizer tokenizer = must_make(hello());
  EXPECT_EQ(must_encode(tokenizer, "hello"), Ids{259});
  EXPECT_EQ(must_encode(tokenizer, "hello"), Ids{259});  // from the memo
  EXPECT_EQ(must_encode(tokenizer, "helo wl"), (Ids{256, 'l', 'o', 260, 'l'}));
  EXPECT_EQ(must_encode(tokenizer, "lll"), (Ids{257, 'l'}));
  EXPECT_EQ(must_encode(tokenizer, ""), Ids{});
}

// A vocabulary that holds "abc" which its merges cannot make: (b, c) goes first, then nothing joins a and bc.
TEST(Encode, WholePieceCountsOnlyWithIgnoreMerges) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  EXPECT_EQ(must_encode(must_make(v), "abc"), (Ids{'a', 256}));
  EXPECT_EQ(must_encode(must_make(v), "abc abc"), (Ids{'a', 256, ' ', 'a', 256}));
  v.ignore_merges = true;
  EXPECT_EQ(must_encode(must_make(v), "abc"), Ids{258});
}

TEST(Encode, RanksMergeLowestJoinedTokenFirst) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {{"a", "b"}, {"b", "c"}, {"c", "d"}, {"ab", "cd"}});
  v.merges.clear();
  v.merge_by_rank = true;
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "abcd"), Ids{259});
  EXPECT_EQ(must_encode(tokenizer, "bcd"), (Ids{257, 'd'}));
  EXPECT_EQ(must_encode(tokenizer, "abc"), (Ids{256, 'c'}));
}

TEST(Encode, SpecialTokensOnlyWhereAskedFor) {
  const Tokenizer tokenizer = must_make(hello());
  const Ids plain = must_encode(tokenizer, "a<|x|>b");
  EXPECT_EQ(plain, (Ids{'a', '<', '|', 'x', '|', '>', 'b'}));
  EXPECT_EQ(must_encode(tokenizer, "a<|x|>b<|x", true), (Ids{'a', kX, 'b', '<', '|', 'x'}));
  EXPECT_TRUE(tokenizer.is_special(kX));
  EXPECT_FALSE(tokenizer.is_special(kB));
  EXPECT_FALSE(tokenizer.is_special('a'));
}

TEST(Encode, NoMergeMakesASpecialToken) {
  Vocabulary v = byte_level_vocabulary("llama-bpe", {{"a", "b"}, {"ab", "c"}});
  v.types[257] = TokenType::kControl;
  for (const bool ignore_merges : {false, true}) {
    v.ignore_merges = ignore_merges;
    EXPECT_EQ(must_encode(must_make(v), "abc"), (Ids{256, 'c'}));
    EXPECT_EQ(must_encode(must_make(v), "abc", true), Ids{257});
  }
}

TEST(Encode, UserDefinedTokensAlwaysLongestFirst) {
  const Tokenizer tokenizer = must_make(hello());
  for (const bool parse_special : {false, true}) {
    EXPECT_EQ(must_encode(tokenizer, "<b><br><b", parse_special), (Ids{kB, kBr, '<', 'b'}));
    EXPECT_EQ(must_encode(tokenizer, "a     b", parse_special), (Ids{'a', kTwoSpaces, kTwoSpaces, ' ', 'b'}));
  }
}

// The longest that is there whole; the leftmost of those that overlap. A special one stands back outside its reach.
TEST(Encode, AddedTokenThatStartsAnother) {
  const Tokenizer tokenizer =
      must_make(byte_level_vocabulary("gpt-2", {}, {"<a>!!"}, {"<a>", "<a>xyz", "<a>x", ">xyzw"}));
  const int32_t special = 256, a = 257, axyz = 258, ax = 259;
  EXPECT_EQ(must_encode(tokenizer, "<a><a>x<a>xy<a>xyz"), (Ids{a, ax, ax, 'y', axyz}));
  EXPECT_EQ(must_encode(tokenizer, "<a>xyzw"), (Ids{axyz, 'w'}));
  EXPECT_EQ(must_encode(tokenizer, "<a>!!<a>!", true), (Ids{special, a, '!'}));
  EXPECT_EQ(must_encode(tokenizer, "<a>!!<a>!"), (Ids{a, '!', '!', a, '!'}));
}

TEST(Encode, AddedTokensTakeSpaceAlongWhereAsked) {
  Vocabulary v = hello();
  v.lstrip_ids = {kX};
  v.rstrip_ids = {kBos};
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "a \n<|x|> b<s>\u3000 c", true), (Ids{'a', kX, ' ', 'b', kBos, 'c'}));
}

TEST(Encode, BosInFrontIfTheVocabularyAddsIt) {
  Vocabulary v = hello();
  v.bos_id = kBos;
  EXPECT_EQ(must_encode(must_make(v), "a", false, true), Ids{'a'});
  v.add_bos = true;
  EXPECT_EQ(must_encode(must_make(v), "a", false, true), (Ids{kBos, 'a'}));
  EXPECT_EQ(must_encode(must_make(v), "", false, true), Ids{kBos});
  EXPECT_EQ(must_encode(must_make(v), "a", false, false), Ids{'a'});
}

TEST(Encode, TokensThatShareTheirStart) {
  std::vector<std::string> added;
  for (int i = 0; i < 10000; ++i) added.push_back("<" + std::string(size_t(i % 100), 'a') + std::to_string(i) + ">");
  const Tokenizer tokenizer = must_make(byte_level_vocabulary("gpt-2", {}, {}, added));
  std::string text;
  Ids expected;
  for (int i = 9999; i >= 0; i -= 3) {
    text += added[size_t(i)] + "x";
    expected.insert(expected.end(), {256 + i, 'x'});
  }
  EXPECT_EQ(must_encode(tokenizer, text), expected);
  EXPECT_EQ(must_encode(tokenizer, std::string(1 << 20, '<')).size(), size_t(1) << 20);
}

TEST(Encode, AnyBytesComeBack) {
  const CounterRng rng(3);
  const Tokenizer tokenizer = must_make(hello("llama-bpe"));
  for (const char* bytes : {"\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x9f\x98", "a\xffhello\xfe"}) {
    EXPECT_EQ(must_decode(tokenizer, must_encode(tokenizer, bytes)), bytes);
  }
  const std::string with_nul("he\0llo\0", 7);
  EXPECT_EQ(must_decode(tokenizer, must_encode(tokenizer, with_nul)), with_nul);
  for (uint64_t i = 0; i < 2000; ++i) {
    std::string text;
    for (uint64_t j = 0; j < 64; ++j) text += char(rng.bits(i * 64 + j) & (i % 2 ? 0xff : 0x6f));
    ASSERT_EQ(must_decode(tokenizer, must_encode(tokenizer, text)), text);
  }
}

TEST(Encode, EveryScalarValueComesBack) {
  const Tokenizer tokenizer = must_make(hello("llama-bpe"));
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string text = "a";
    append_utf8(text, c);
    ASSERT_EQ(must_decode(tokenizer, must_encode(tokenizer, text)), text);
  }
}

// Vocabularies of UTF-8 text lack the bytes that UTF-8 never uses; those read as U+FFFD.
TEST(Encode, ByteWithoutTokenBecomesReplacementCharacter) {
  Vocabulary v = hello();
  v.tokens[0xff] = "unused";
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "a\xff"), (Ids{'a', 0xef, 0xbf, 0xbd}));
  EXPECT_TRUE(vocabulary_of(tokenizer).notices.empty());
}

// Falcon's vocabulary has no token for 14 control characters; the libraries that it was made with leave them out.
TEST(Encode, ByteOfTextWithoutTokenIsLeftOut) {
  Vocabulary v = hello();
  v.tokens[0x03] = "unused";
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "a\x03\x03hell\x03o\x04"), (Ids{'a', 258, 'o', 0x04}));
  EXPECT_EQ(must_encode(tokenizer, "\x03"), Ids{});
  ASSERT_EQ(vocabulary_of(tokenizer).notices.size(), 1u);
  EXPECT_NE(vocabulary_of(tokenizer).notices[0].find("0x03"), std::string::npos) << vocabulary_of(tokenizer).notices[0];
  v.tokens['a'] = "unused too";
  const auto made = make_tokenizer(v, "t");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message, "t: the vocabulary has no token for the character 'a'");
}

// Long runs that one piece holds: the work must grow as n log n, and nothing may recurse. Were it quadratic, each run
// would take minutes.
TEST(Encode, LongRunsOfOneCharacter) {
  Vocabulary v = byte_level_vocabulary(
      "llama-bpe", {{"a", "a"}, {"aa", "aa"}, {"a", "b"}, {"ab", "ab"}, {" ", " "}, {"\n", "\n"}, {".", "."}});
  v.ignore_merges = true;
  const Tokenizer tokenizer = must_make(v);
  const size_t n = 1 << 20;
  EXPECT_EQ(must_encode(tokenizer, std::string(n, 'a')), Ids(n / 4, 257));
  EXPECT_EQ(must_encode(tokenizer, std::string(n, '\n')), Ids(n / 2, 261));
  EXPECT_EQ(must_encode(tokenizer, std::string(n, '.')), Ids(n / 2, 262));
  EXPECT_EQ(must_encode(tokenizer, std::string(n, ' ')), Ids(n / 2, 260));
  EXPECT_EQ(must_encode(tokenizer, std::string(n, '9')), Ids(n, '9'));
  std::string abab;
  while (abab.size() < n) abab += "ab";
  EXPECT_EQ(must_encode(tokenizer, abab), Ids(n / 4, 259));
  for (const std::string unit : {"\u4e2d", "\U0001f468\u200d", "e\u0301", "\u0301", "\u00a0"}) {
    std::string text;
    while (text.size() < n) text += unit;
    EXPECT_EQ(must_decode(tokenizer, must_encode(tokenizer, text)), text);
  }
}

// A SentencePiece text without spaces, or whose tokens reach over words, is one piece.
TEST(Encode, LongSentencePieceRuns) {
  Vocabulary v = sentencepiece_vocabulary({{"\u2581", -9}, {"a", -8}, {"aa", -7}, {"aaaa", -6}, {"\u2581\u2581", -5}});
  const size_t n = 1 << 20;
  for (const bool words_are_separate : {true, false}) {
    const Tokenizer tokenizer = must_make(v);
    for (const std::string unit : {"a", " ", "a ", "\u4e2d", "\n", "\xff"}) {
      std::string text;
      while (text.size() < n) text += unit;
      EXPECT_EQ(must_decode(tokenizer, must_encode(tokenizer, text)), text) << unit << words_are_separate;
    }
    v.tokens.push_back("a\u2581a");
    v.types.push_back(TokenType::kNormal);
    v.scores.push_back(-1);
  }
}

// By its size alone: nothing of the text is there to be read.
TEST(Encode, RefusesATextThatIsTooLong) {
  const Tokenizer tokenizer = must_make(hello());
  for (const size_t size : {(size_t{1} << 30) + 1, size_t{1} << 31, size_t{1} << 40}) {
    const auto ids = tokenizer.encode(std::string_view("a", size));
    ASSERT_FALSE(ids);
    EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(ids.error().message,
              "test: the text has " + std::to_string(size) + " bytes; at most 1073741824 can be encoded at once");
  }
}

TEST(Encode, RefusesARunThatIsNoText) {
  const Tokenizer tokenizer = must_make(hello());
  const auto ids = tokenizer.encode(std::string((16 << 20) + 1, 'a'));
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(ids.error().message.find("16777217"), std::string::npos) << ids.error().message;
}

TEST(Encode, SameFromManyThreads) {
  const Tokenizer tokenizer = must_make(hello());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += i % 3 ? "hello helo " : "whellol\n";
  const Ids expected = must_encode(must_make(hello()), text);
  for (const size_t n_threads : {1, 2, 8}) {
    std::vector<Ids> results(n_threads);
    std::vector<std::thread> threads;
    for (Ids& result : results) threads.emplace_back([&] { result = *tokenizer.encode(text); });
    for (std::thread& thread : threads) thread.join();
    for (const Ids& result : results) EXPECT_EQ(result, expected);
  }
}

}  // namespace
}  // namespace bitnet
