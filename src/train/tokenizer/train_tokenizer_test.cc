#include "train/tokenizer/train_tokenizer.h"

#include "bitnet/tokenizer.h"

#include "base/rng.h"
#include "train/test_folder.h"
#include "train/tokenizer/count_words.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>

namespace bitnet {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

// Words of a small language, with line breaks, numbers, runs of one letter and some bytes that are not UTF-8.
std::string made_up_text(uint64_t seed, size_t n_words) {
  const CounterRng rng(seed);
  static const char* const syllables[] = {"ba", "na", "no", "aa",  "a", "ti", "tra",
                                          "x",  "'s", "12", "345", ",", ".",  "--"};
  std::string text;
  uint64_t at = 0;
  for (size_t i = 0; i < n_words; ++i) {
    // A few words are frequent.
    const CounterRng word(uint64_t(std::pow(rng.uniform(at++), 3) * 700));
    const uint64_t n = 1 + word.bits(0) % 4;
    for (uint64_t k = 1; k <= n; ++k) text += syllables[word.bits(k) % std::size(syllables)];
    text += rng.bits(at++) % 20 == 0 ? "\n" : rng.bits(at++) % 15 == 0 ? "  " : " ";
  }
  return text;
}

// The published algorithm, word for word: strings instead of ids, everything counted anew for every merge, words cut by
// a regular expression of the standard library (the text is ASCII).
struct SlowTrainer {
  using Word = std::vector<std::string>;
  std::map<Word, int64_t> words;
  std::vector<std::string> order;  // of symbols, as they came to be

  explicit SlowTrainer(const std::string& text) {
    const std::regex gpt2(R"('s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+)");
    for (std::sregex_iterator match(text.begin(), text.end(), gpt2), end; match != end; ++match) {
      Word word;
      for (const char c : match->str()) word.push_back(std::string(1, c));
      ++words[word];
    }
    // Printable bytes first: the order of the alphabet that byte-level vocabularies are written in.
    for (int c = '!'; c <= '~'; ++c) order.push_back(std::string(1, char(c)));
    for (int c = 0; c <= ' '; ++c) order.push_back(std::string(1, char(c)));
  }

  bool merge_best(int64_t min_count, std::pair<std::string, std::string>& merged) {
    std::map<std::pair<std::string, std::string>, int64_t> counts;
    for (const auto& [word, n] : words) {
      for (size_t i = 1; i < word.size(); ++i) counts[{word[i - 1], word[i]}] += n;
    }
    const auto place = [&](const std::string& symbol) {
      return std::find(order.begin(), order.end(), symbol) - order.begin();
    };
    const std::pair<const std::pair<std::string, std::string>, int64_t>* best = nullptr;
    for (const auto& entry : counts) {
      const auto better = [&] {
        if (entry.second != best->second) return entry.second > best->second;
        return std::pair(place(entry.first.first), place(entry.first.second)) <
               std::pair(place(best->first.first), place(best->first.second));
      };
      if (best == nullptr || better()) best = &entry;
    }
    if (best == nullptr || best->second < min_count) return false;
    merged = best->first;
    std::map<Word, int64_t> after;
    for (const auto& [word, n] : words) {
      Word joined;
      for (size_t i = 0; i < word.size(); ++i) {
        if (i + 1 < word.size() && word[i] == merged.first && word[i + 1] == merged.second) {
          joined.push_back(word[i] + word[i + 1]);
          ++i;
        } else {
          joined.push_back(word[i]);
        }
      }
      after[joined] += n;
    }
    words = std::move(after);
    if (place(merged.first + merged.second) == std::ssize(order)) order.push_back(merged.first + merged.second);
    return true;
  }
};

TokenizerTrainingReport train(const std::string& folder, int64_t vocab_size, const std::string& pre, int n_threads = 1,
                              int64_t min_count = 1) {
  TokenizerTrainingOptions options;
  options.inputs = {folder};
  options.plan.vocab_size = vocab_size;
  options.plan.pre = pre;
  options.plan.min_count = min_count;
  options.n_threads = n_threads;
  auto report = train_tokenizer(options);
  EXPECT_TRUE(report) << report.error().message;
  return *std::move(report);
}

std::string in_alphabet(const std::string& ascii) {
  std::string out;
  for (const char c : ascii) out += c == ' ' ? "\u0120" : c == '\n' ? "\u010a" : std::string(1, c);
  return out;
}

TEST(TrainTokenizer, LearnsWhatASlowTrainerLearns) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    TemporaryFolder folder;
    const std::string text = made_up_text(seed, 3000);
    folder.write("a.txt", text);
    const auto report = train(folder.path(), 256 + 2 + 300, "gpt-2");
    SlowTrainer slow(text);
    std::pair<std::string, std::string> merge;
    size_t n = 0;
    for (; n < report.vocabulary.merges.size(); ++n) {
      ASSERT_TRUE(slow.merge_best(1, merge));
      ASSERT_EQ(report.vocabulary.merges[n], std::pair(in_alphabet(merge.first), in_alphabet(merge.second)))
          << "seed " << seed << ", merge " << n;
    }
    EXPECT_GT(n, 100u);
    EXPECT_TRUE(report.vocabulary.tokens.size() == 558 || !slow.merge_best(1, merge));
    int64_t n_tokens = 0;
    for (const auto& [word, count] : slow.words) n_tokens += count * int64_t(word.size());
    EXPECT_EQ(report.n_tokens, n_tokens);
  }
}

TEST(TrainTokenizer, DoesNotDependOnThreadsOrOnHowTheTextIsCutIntoFiles) {
  TemporaryFolder one, many;
  std::string text = made_up_text(9, 400'000);
  one.write("all.txt", text);
  for (int i = 0; i < 5; ++i) {
    const size_t end = i == 4 ? text.size() : text.find(' ', text.size() / 7);
    many.write(fmt::format("{}.txt", i), text.substr(0, end));
    text.erase(0, end);
  }
  const auto a = train(one.path(), 700, "gpt-2", 1), b = train(one.path(), 700, "gpt-2", 3),
             c = train(many.path(), 700, "gpt-2", 2);
  EXPECT_EQ(a.vocabulary.merges, b.vocabulary.merges);
  EXPECT_EQ(a.vocabulary.merges, c.vocabulary.merges);
  EXPECT_EQ(a.vocabulary.tokens, c.vocabulary.tokens);
  EXPECT_EQ(a.n_tokens, c.n_tokens);
}

TEST(TrainTokenizer, ComesBackFromItsFilesAndEncodesAnything) {
  TemporaryFolder folder;
  folder.write("a.txt", made_up_text(4, 40'000) + "caf\u00e9 \u4e2d\u6587 caf\u00e9 \u4e2d\u6587\xff\xfe");
  for (const char* pre :
       {"llama-bpe", "gpt-2", "qwen2", "starcoder", "falcon", "deepseek-llm", "deepseek-coder", "default"}) {
    const auto report = train(folder.path(), 450, pre, 2, 2);
    ASSERT_EQ(report.vocabulary.tokens.size(), 450u) << pre;
    TemporaryFolder out;
    ASSERT_TRUE(vocabulary_to_folder(report.vocabulary, out.path()));
    const auto back = Tokenizer::load(out.path());
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(vocabulary_of(*back).merges, report.vocabulary.merges);
    EXPECT_EQ(vocabulary_of(*back).tokens, report.vocabulary.tokens);
    EXPECT_EQ(vocabulary_of(*back).pre, pre);
    EXPECT_EQ(back->bos_id(), 448);
    EXPECT_EQ(back->eos_id(), 449);
    EXPECT_TRUE(back->adds_bos());
    std::string bytes;
    for (uint64_t i = 0; i < 5000; ++i) bytes += char(CounterRng(7).bits(i));
    for (const std::string& text : {bytes, made_up_text(5, 500), std::string("caf\u00e9 <|end_of_text|>\n\n  x")}) {
      const auto ids = back->encode(text);
      ASSERT_TRUE(ids);
      EXPECT_EQ(ids->front(), 448);
      const auto decoded = back->decode(std::span(*ids).subspan(1));
      ASSERT_TRUE(decoded);
      EXPECT_EQ(*decoded, text) << pre;
    }
  }
}

TEST(TrainTokenizer, GoesIntoGgufFiles) {
  TemporaryFolder folder;
  folder.write("a.txt", made_up_text(4, 20'000));
  for (const char* pre : {"llama-bpe", "gpt-2"}) {
    const auto report = train(folder.path(), 600, pre);
    const std::string path = folder.file("vocabulary.gguf");
    auto writer = GgufWriter::create(path);
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->add_metadata("general.architecture", std::string("bitnet-b1.58")));
    ASSERT_TRUE(vocabulary_to_gguf(report.vocabulary, *writer));
    ASSERT_TRUE(writer->begin_data());
    ASSERT_TRUE(writer->finish());
    const auto back = Tokenizer::load(path), original = make_tokenizer(report.vocabulary, "new");
    ASSERT_TRUE(back) << back.error().message;
    for (uint64_t seed = 20; seed < 25; ++seed) {
      const std::string text = made_up_text(seed, 300);
      EXPECT_EQ(*back->encode(text), *original->encode(text));
    }
  }
}

TEST(TrainTokenizer, TheReportCountsWhatTheTokenizerMakes) {
  TemporaryFolder folder;
  const std::string text = made_up_text(11, 30'000);
  folder.write("a.txt", text);
  const auto report = train(folder.path(), 500, "gpt-2");
  const auto tokenizer = make_tokenizer(report.vocabulary, "new");
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(report.text_bytes, text.size());
  EXPECT_EQ(report.n_tokens, int64_t(tokenizer->encode(text)->size()) - 1);
}

TEST(TrainTokenizer, SaysWhenTheTextIsNotEnough) {
  TemporaryFolder folder;
  folder.write("a.txt", "abab abab");
  const auto report = train(folder.path(), 1000, "gpt-2");
  EXPECT_EQ(report.vocabulary.merges.size(), 3u);  // ab, abab, " abab"
  ASSERT_EQ(report.notices.size(), 1u);
  EXPECT_NE(report.notices[0].find("261 of the 1000"), std::string::npos) << report.notices[0];
}

TEST(TrainTokenizer, RefusesPlansThatCannotBe) {
  TemporaryFolder folder;
  TokenizerTrainingOptions options;
  options.inputs = {folder.write("a.txt", "text")};
  options.plan.vocab_size = 257;
  expect_error(train_tokenizer(options), ErrorCode::kInvalidArgument, "expected 258");
  options.plan.vocab_size = 300;
  options.plan.pre = "regex";
  expect_error(train_tokenizer(options), ErrorCode::kInvalidArgument, "no pre-tokenizer regex");
  options.plan.pre = "gpt-2";
  options.plan.special = {"a"};  // a token that the text makes too
  expect_error(train_tokenizer(options), ErrorCode::kInvalidInput, "\"a\"");
  options.plan.special = {};
  options.on_progress = [](double) { return false; };
  expect_error(train_tokenizer(options), ErrorCode::kInterrupted, "stopped");
  options.inputs = {folder.write("empty.txt", "")};
  options.on_progress = {};
  expect_error(train_tokenizer(options), ErrorCode::kInvalidInput, "no text");
}

TEST(PairMerger, RunsOfOneSymbolMergeFromTheLeft) {
  const CountedWord words[] = {{"aaaaa", 3}, {"aaa", 1}};
  const std::vector<int32_t> ids = alphabet_ids();
  const int32_t a = ids['a'];
  PairMerger merger(words, std::span<const int32_t, 256>(ids));
  EXPECT_EQ(merger.best()->count, 4 * 3 + 2);
  merger.merge({a, a}, 256);  // AAa, Aa
  EXPECT_EQ(merger.best()->pair, PairMerger::Pair(256, a));
  EXPECT_EQ(merger.best()->count, 3 + 1);
  merger.merge({256, a}, 257);
  EXPECT_EQ(merger.best()->pair, PairMerger::Pair(256, 257));
  EXPECT_EQ(merger.best()->count, 3);
  EXPECT_EQ(merger.n_symbols(), 3 * 2 + 1);
}

}  // namespace
}  // namespace bitnet
