#include "train/data/prepare.h"

#include "bitnet/tokenizer.h"

#include "base/rng.h"
#include "format/json.h"
#include "train/test_folder.h"
#include "train/tokenizer/train_tokenizer.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace bitnet {
namespace {

using testing::contents_of;
using testing::expect_error;
using testing::TemporaryFolder;

struct Document {
  std::string text;
  Split split;
  bool operator==(const Document&) const = default;
};

std::vector<Document> documents_of(const std::vector<std::string>& inputs, const CorpusOptions& options = {}) {
  std::vector<Document> documents;
  auto corpus = Corpus::open(inputs, options);
  EXPECT_TRUE(corpus) << corpus.error().message;
  bool inside = false;
  for (;;) {
    const auto chunk = corpus->next();
    EXPECT_TRUE(chunk) << chunk.error().message;
    if (!chunk || !*chunk) break;
    EXPECT_EQ((*chunk)->begins_document, !inside);
    if (!inside) documents.push_back({"", (*chunk)->split});
    documents.back().text += (*chunk)->text;
    inside = !(*chunk)->ends_document;
  }
  EXPECT_FALSE(inside);
  EXPECT_EQ(corpus->position_bytes(), corpus->size_bytes());
  return documents;
}

// Prose of several scripts with line breaks and runs of spaces; some of it without either.
std::string prose(uint64_t seed, size_t n_bytes) {
  static const char* const words[] = {"Once",
                                      "upon",
                                      "the",
                                      "fox's",
                                      "12,345",
                                      "na\u00efve",
                                      "\u4e2d\u6587\uff0c",
                                      "(yes)",
                                      "don't",
                                      "\u041c\u0438\u0440",
                                      "--",
                                      "a",
                                      "x.\n",
                                      "\u3000",
                                      "said:\n\n",
                                      "...",
                                      "\t"};
  const CounterRng rng(seed);
  std::string text;
  for (uint64_t i = 0; text.size() < n_bytes; ++i) {
    text += words[rng.bits(3 * i) % std::size(words)];
    const uint64_t gap = rng.bits(3 * i + 2);
    if (rng.bits(3 * i + 1) % 8 != 0) text += gap % 10 == 0 ? "\n" : std::string(1 + gap / 10 % 6, ' ');
  }
  return text;
}

TEST(Corpus, ATextFileIsOneDocument) {
  TemporaryFolder folder;
  const std::string a = folder.write("a.txt", "first\n\nfile\n"), b = folder.write("b", "second"),
                    c = folder.write("c.txt", "");
  EXPECT_EQ(documents_of({b, a, c}),
            (std::vector<Document>{{"second", Split::kTrain}, {"first\n\nfile\n", Split::kTrain}}));
}

TEST(Corpus, SeparatorsEndDocuments) {
  TemporaryFolder folder;
  CorpusOptions options;
  options.separator = "\n<|end|>\n";
  const std::string path = folder.write("a.txt", "one\n<|end|>\n\n<|end|>\ntwo <|end|> two\n<|end|>\nthree\n");
  EXPECT_EQ(
      documents_of({path}, options),
      (std::vector<Document>{{"one", Split::kTrain}, {"two <|end|> two", Split::kTrain}, {"three\n", Split::kTrain}}));
  // Across the blocks that a file is read in.
  std::string text;
  std::vector<Document> expected;
  for (uint64_t i = 0; i < 60; ++i) {
    expected.push_back({prose(i, CounterRng(2).bits(i) % 400'000 + 1), Split::kTrain});
    text += (i == 0 ? "" : options.separator) + expected.back().text;
  }
  EXPECT_EQ(documents_of({folder.write("long.txt", text)}, options), expected);
}

TEST(Corpus, JsonLines) {
  TemporaryFolder folder;
  const std::string path = folder.write(
      "a.jsonl", "{\"text\": \"one\\ntwo\", \"n\": [1]}\n\n  \n{\"text\": \"\"}\n{\"text\":\"\u00e4\\u0000\"}");
  const std::string nul("\u00e4\0", 3);
  EXPECT_EQ(documents_of({path}), (std::vector<Document>{{"one\ntwo", Split::kTrain}, {nul, Split::kTrain}}));
  CorpusOptions options;
  options.field = "story";
  EXPECT_EQ(documents_of({folder.write("b.ndjson", "{\"story\": \"x\"}\n")}, options).size(), 1u);
  const auto error_of = [&](const std::string& contents) -> Status {
    const std::string input = folder.write("bad.jsonl", contents);
    BN_ASSIGN_OR_RETURN(Corpus corpus, Corpus::open({&input, 1}, {}));
    for (;;) {
      BN_ASSIGN_OR_RETURN(const auto chunk, corpus.next());
      if (!chunk) return ok();
    }
  };
  expect_error(error_of("{\"text\": \"x\"}\n{\"text\": 5}\n"), ErrorCode::kInvalidInput, "line 2: \"text\"");
  expect_error(error_of("{\"body\": \"x\"}\n"), ErrorCode::kInvalidInput, "line 1");
  expect_error(error_of("{\"text\": \"x\"\n"), ErrorCode::kInvalidInput, "line 1");
  expect_error(error_of("[1]\n"), ErrorCode::kInvalidInput, "not a JSON object");
}

TEST(Corpus, FoldersAreReadInOrderAndSayWhatTheyLeaveOut) {
  TemporaryFolder folder;
  folder.write("b/2.txt", "2");
  folder.write("b/1.md", "1");
  folder.write("a.jsonl", "{\"text\": \"0\"}\n");
  folder.write("b/image.png", "x");
  const std::string input = folder.path();
  const auto corpus = Corpus::open({&input, 1}, {});
  ASSERT_TRUE(corpus);
  EXPECT_EQ(corpus->n_files(), 3u);
  ASSERT_EQ(corpus->notices().size(), 1u);
  EXPECT_NE(corpus->notices()[0].find("1 file(s)"), std::string::npos);
  std::string all;
  for (const Document& document : documents_of({input})) all += document.text;
  EXPECT_EQ(all, "012");
  folder.write("empty/x.bin", "");
  const std::string other = folder.file("empty");
  expect_error(Corpus::open({&other, 1}, {}), ErrorCode::kInvalidInput, "holds no text");
  const std::string zipped = folder.write("x.txt", std::string("\x1f\x8b\x08\0\0\0", 6));
  expect_error(Corpus::open({&zipped, 1}, {}), ErrorCode::kInvalidInput, "gzip");
  const std::string missing = folder.file("missing.txt");
  expect_error(Corpus::open({&missing, 1}, {}), ErrorCode::kInvalidInput, "missing.txt");
}

TEST(Corpus, TheTailIsTheLastShareOfTheBytes) {
  TemporaryFolder folder;
  CorpusOptions options;
  options.valid_tail = 0.25;
  const std::string a = folder.write("a.txt", "0123456789"), b = folder.write("b.txt", "abcd\u00e9\u00e9"),
                    c = folder.write("c.jsonl", "{\"text\":\"x\"}\n{\"text\":\"y\"}\n");
  EXPECT_EQ(documents_of({a}, options), (std::vector<Document>{{"0123456", Split::kTrain}, {"789", Split::kValid}}));
  // Byte 6 of 8 is the first of the second \u00e9; with one byte more it would be in the middle of it.
  EXPECT_EQ(documents_of({b}, options),
            (std::vector<Document>{{"abcd\u00e9", Split::kTrain}, {"\u00e9", Split::kValid}}));
  EXPECT_EQ(documents_of({folder.write("d.txt", "abcde\u00e9\u00e9")}, options),
            (std::vector<Document>{{"abcde\u00e9", Split::kTrain}, {"\u00e9", Split::kValid}}));
  EXPECT_EQ(documents_of({c}, options), (std::vector<Document>{{"x", Split::kTrain}, {"y", Split::kTrain}}));
  options.valid_tail = 0.5;
  EXPECT_EQ(documents_of({c}, options), (std::vector<Document>{{"x", Split::kTrain}, {"y", Split::kValid}}));
  EXPECT_EQ(documents_of({b, b}, options),
            (std::vector<Document>{{"abcd\u00e9\u00e9", Split::kTrain}, {"abcd\u00e9\u00e9", Split::kValid}}));
}

TEST(Corpus, DocumentsKeepTheirSideWhenOthersComeAndGo) {
  TemporaryFolder folder;
  CorpusOptions options;
  options.valid_documents = 0.2;
  std::string all, half;
  for (int i = 0; i < 2000; ++i) {
    const std::string line = fmt::format("{{\"text\": \"document number {}\"}}\n", i);
    all += line;
    if (i % 2 == 0) half += line;
  }
  const auto documents = documents_of({folder.write("all.jsonl", all)}, options);
  std::map<std::string, Split> split_of;
  int n_valid = 0;
  for (const Document& document : documents) {
    split_of[document.text] = document.split;
    n_valid += document.split == Split::kValid;
  }
  EXPECT_NEAR(n_valid, 400, 60);
  for (const Document& document : documents_of({folder.write("half.jsonl", half)}, options)) {
    EXPECT_EQ(document.split, split_of.at(document.text));
  }
}

PrepareOptions options_for(const std::vector<std::string>& inputs, const std::string& tokenizer,
                           const std::string& out) {
  PrepareOptions options;
  options.inputs = inputs;
  options.tokenizer = tokenizer;
  options.folder = out;
  return options;
}

std::vector<int32_t> all_ids(const std::string& folder, Split split) {
  std::vector<int32_t> ids;
  const auto dataset = Dataset::open(folder);
  EXPECT_TRUE(dataset) << dataset.error().message;
  for (const auto& entry : dataset->info().shards[size_t(split)]) {
    const auto shard = Shard::open(folder + "/" + entry.file);
    std::vector<int32_t> part(entry.header.n_tokens);
    EXPECT_TRUE(shard->read(0, part));
    ids.insert(ids.end(), part.begin(), part.end());
  }
  return ids;
}

TEST(Prepare, BytesAreTheTextItself) {
  TemporaryFolder folder;
  const std::string text = prose(1, 2'500'000);
  PrepareOptions options = options_for({folder.write("a.txt", text)}, "byte", folder.file("data"));
  options.corpus.valid_tail = 0.1;
  options.shard_tokens = 1'000'000;
  const auto report = prepare_dataset(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->info.vocab_size, 256);
  EXPECT_EQ(report->info.shards[0].size(), 3u);
  std::string back;
  for (const Split split : {Split::kTrain, Split::kValid}) {
    for (const int32_t id : all_ids(options.folder, split)) back += char(id);
    EXPECT_EQ(report->info.n_documents(split), 1);
  }
  EXPECT_EQ(back, text);
  EXPECT_NEAR(double(report->info.n_tokens(Split::kTrain)), 0.9 * double(text.size()), 3);
  EXPECT_EQ(std::filesystem::file_size(folder.file("data/train-00000.tokens")), 64u + 1'000'000u + 4 * 16u);
  const auto vocabulary = Dataset::open(options.folder)->vocabulary();
  ASSERT_TRUE(vocabulary) << vocabulary.error().message;
  EXPECT_EQ(vocabulary->tokens, byte_vocabulary().tokens);
}

// The stretches that a long document is cut into give the same tokens as the whole, for each family of pre-tokenizers.
TEST(Prepare, LongDocumentsAreEncodedAsAWhole) {
  TemporaryFolder folder;
  const std::string text = prose(3, 3'300'000);
  const std::string input = folder.write("a.txt", text);
  for (const char* pre :
       {"llama-bpe", "gpt-2", "qwen2", "starcoder", "falcon", "deepseek-llm", "deepseek-coder", "default"}) {
    TokenizerTrainingOptions training;
    training.inputs = {input};
    training.plan.vocab_size = 600;
    training.plan.pre = pre;
    const auto trained = train_tokenizer(training);
    ASSERT_TRUE(trained) << trained.error().message;
    ASSERT_TRUE(vocabulary_to_folder(trained->vocabulary, folder.path()));
    PrepareOptions options = options_for({input}, folder.file("tokenizer.json"), folder.file(pre));
    options.n_threads = 2;
    const auto report = prepare_dataset(options);
    ASSERT_TRUE(report) << report.error().message;
    const auto tokenizer = Tokenizer::load(folder.path());
    auto expected = *tokenizer->encode(text);
    expected.push_back(*tokenizer->eos_id());
    EXPECT_EQ(all_ids(options.folder, Split::kTrain), expected) << pre;
  }
}

TEST(Prepare, DocumentsBeginAndEndWithTheirTokens) {
  TemporaryFolder folder;
  TokenizerTrainingOptions training;
  training.inputs = {folder.write("a.jsonl", "{\"text\": \"one two\"}\n{\"text\": \"three\"}\n")};
  training.plan.vocab_size = 258;
  ASSERT_TRUE(vocabulary_to_folder(train_tokenizer(training)->vocabulary, folder.path()));
  const auto ids_with = [&](bool bos, bool eos) {
    PrepareOptions options = options_for(training.inputs, folder.path(), folder.file(fmt::format("{}{}", bos, eos)));
    options.add_bos = bos;
    options.add_eos = eos;
    EXPECT_TRUE(prepare_dataset(options));
    return all_ids(options.folder, Split::kTrain);
  };
  const auto both = ids_with(true, true);
  ASSERT_EQ(both.size(), 7u + 5 + 4);
  EXPECT_EQ(both.front(), 256);
  EXPECT_EQ(both[8], 257);
  EXPECT_EQ(both[9], 256);
  EXPECT_EQ(both.back(), 257);
  EXPECT_EQ(ids_with(false, false).size(), 12u);
  EXPECT_EQ(ids_with(false, true).size(), 14u);
}

TEST(Prepare, DoesNotDependOnThreads) {
  TemporaryFolder folder;
  std::string lines;
  for (uint64_t i = 0; i < 3000; ++i) lines += Json{{"text", prose(i, CounterRng(1).bits(i) % 3000)}}.dump() + "\n";
  const std::string input = folder.write("a.jsonl", lines);
  for (const int n_threads : {1, 3}) {
    PrepareOptions options = options_for({input}, "byte", folder.file(fmt::format("{}", n_threads)));
    options.corpus.valid_documents = 0.1;
    options.n_threads = n_threads;
    ASSERT_TRUE(prepare_dataset(options));
  }
  for (const char* name : {"dataset.json", "train-00000.tokens", "valid-00000.tokens", "tokenizer.json"}) {
    EXPECT_EQ(contents_of(folder.file("1/" + std::string(name))), contents_of(folder.file("3/" + std::string(name))))
        << name;
  }
}

TEST(Prepare, NothingIsLeftOfWhatDoesNotWork) {
  TemporaryFolder folder;
  const auto expect_nothing_left = [&] {
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      EXPECT_FALSE(entry.path().filename().string().starts_with("data")) << entry.path();
    }
  };
  PrepareOptions options = options_for({folder.write("a.txt", "some text")}, "byte", folder.file("data"));
  options.on_progress = [](double) { return false; };
  expect_error(prepare_dataset(options), ErrorCode::kInterrupted, "stopped");
  expect_nothing_left();
  options.on_progress = {};
  options.inputs = {folder.write("empty.txt", "")};
  expect_error(prepare_dataset(options), ErrorCode::kInvalidInput, "no document");
  expect_nothing_left();
  options.inputs = {folder.file("a.txt")};
  options.corpus.valid_documents = 0.5;
  expect_error(prepare_dataset(options), ErrorCode::kInvalidInput, "fell on the");
  expect_nothing_left();
  options.corpus.valid_documents = 0;
  options.tokenizer = folder.file("none.json");
  expect_error(prepare_dataset(options), ErrorCode::kInvalidInput, "none.json");
  options.tokenizer = "byte";
  ASSERT_TRUE(prepare_dataset(options));
  expect_error(prepare_dataset(options), ErrorCode::kInvalidArgument, "is there already");
}

}  // namespace
}  // namespace bitnet
