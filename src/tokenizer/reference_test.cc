// Published vocabularies against their reference vectors, read in place from the shared folder; skipped without it.
#include "format/json.h"
#include "tokenizer/test_vocabulary.h"

#include "base/file.h"

#include <fstream>
#include <sstream>

namespace bitnet {
namespace {

using namespace testing_support;

std::vector<std::string> read_cases(const std::string& path) {
  const std::string text = *read_file(path), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> cases;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = std::min(text.find(separator, pos), text.size());
    cases.push_back(text.substr(pos, end - pos));
    pos = end + separator.size();
  }
  return cases;
}

std::vector<std::vector<int32_t>> read_ids(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::vector<int32_t>> lists;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    for (int32_t id; words >> id;) ids.push_back(id);
    lists.push_back(ids);
  }
  return lists;
}

class ReferenceVectors : public ::testing::TestWithParam<const char*> {};

TEST_P(ReferenceVectors, AllEqual) {
  const std::string path = shared_file(std::string("tokenizers/") + GetParam());
  if (path.empty()) GTEST_SKIP() << "shared/tokenizers/" << GetParam() << " is not there";
  const auto tokenizer = Tokenizer::load(path);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto cases = read_cases(path + ".inp");
  const auto expected = read_ids(path + ".out");
  ASSERT_EQ(cases.size(), 46u);
  ASSERT_EQ(expected.size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(must_encode(*tokenizer, cases[i]), expected[i]) << cases[i];
}

TEST(Reference, Llama3Ranks) {
  const std::string path = shared_file("tokenizers/llama3.tiktoken");
  if (path.empty()) GTEST_SKIP() << "shared/tokenizers/llama3.tiktoken is not there";
  const auto tokenizer = Tokenizer::load(path);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->description(), "byte-level BPE, llama-bpe, 128256 tokens");
  EXPECT_EQ(tokenizer->bos_id(), 128000);
  EXPECT_EQ(tokenizer->eos_id(), 128001);
  EXPECT_EQ(tokenizer->find("<|eot_id|>"), 128009);
  // Published ids of these texts (llama.cpp's llama-bpe vectors and Meta's own tests).
  const std::pair<const char*, std::vector<int32_t>> known[] = {
      {"Hello World", {9906, 4435}},
      {" Hello World!", {22691, 4435, 0}},
      {"3333333", {8765, 8765, 18}},
      {"Hello, y'all! How are you \U0001f601 ?\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e",
       {9906,  11,     379,   65948, 0,      2650, 527,   499, 27623, 223,  949,
        37046, 101067, 19000, 23182, 102301, 9263, 18136, 16,  36827, 21909}},
      {"This is a test sentence.", {2028, 374, 264, 1296, 11914, 13}},
  };
  for (const auto& [text, ids] : known) EXPECT_EQ(must_encode(*tokenizer, text), ids) << text;
}

// llama.cpp's ids of 20,000 texts that hold every trap we know of; those of Llama 3 are by the merges of its ranks.
TEST(Reference, RandomTextsAsLlamaCppEncodesThem) {
  const std::pair<std::string, uint64_t> digests[] = {
      {BITNET_SOURCE_DIR "/models/storyteller-29m.gguf", 0x8005ceb5ad1da419},
      {shared_file("tokenizers/gpt-2.gguf"), 0xd4d69f74d6b8ae4f},
      {shared_file("tokenizers/llama-spm.gguf"), 0x4601b741203828d0},
      {shared_file("tokenizers/llama3.tiktoken"), 0x4abdc955ba9cd9fd},
  };
  for (const auto& [path, expected] : digests) {
    if (path.empty()) continue;  // no shared folder here
    const auto tokenizer = Tokenizer::load(path);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    Digest digest;
    for (uint64_t i = 0; i < 20000; ++i) digest.add(must_encode(*tokenizer, random_text(i)));
    EXPECT_EQ(digest.value(), expected) << path;
  }
}

// Hugging Face's and llama.cpp's files of this vocabulary list 280147 merges; ours, made from the ranks, must be those.
TEST(Reference, Llama3RanksAsMerges) {
  const std::string path = shared_file("tokenizers/llama3.tiktoken"),
                    text_path = shared_file("data/storybooks/valid.txt");
  if (path.empty() || text_path.empty()) GTEST_SKIP() << "shared/tokenizers or shared/data is not there";
  const auto by_rank = Tokenizer::load(path);
  ASSERT_TRUE(by_rank) << by_rank.error().message;
  TemporaryFolder folder;
  auto writer = GgufWriter::create(folder / "v.gguf");
  ASSERT_TRUE(writer && vocabulary_to_gguf(vocabulary_of(*by_rank), *writer) && writer->begin_data() &&
              writer->finish());
  const auto by_merges = Tokenizer::load(folder / "v.gguf");
  ASSERT_TRUE(by_merges) << by_merges.error().message;
  EXPECT_EQ(vocabulary_of(*by_merges).merges.size(), 280147u);
  EXPECT_EQ(vocabulary_of(*by_merges).stop_ids, (std::vector<int32_t>{128001, 128009}));
  const std::string text = *read_file(text_path);
  const auto ids = must_encode(*by_rank, text);
  EXPECT_EQ(must_encode(*by_merges, text), ids);
  EXPECT_EQ(must_decode(*by_rank, ids), text);
}

TEST(Reference, StorytellerPrompts) {
  const std::string folder = shared_file("models/storyteller-29m");
  if (folder.empty()) GTEST_SKIP() << "shared/models/storyteller-29m is not there";
  const auto tokenizer = Tokenizer::load(folder);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_TRUE(vocabulary_of(*tokenizer).notices.empty());
  const auto golden = parse_json(*read_file(folder + "/golden_hf_f32.json"), "golden");
  ASSERT_TRUE(golden);
  for (const Json& entry : *golden) {
    const auto ids = entry["ids"].get<std::vector<int32_t>>(), greedy = entry["greedy"].get<std::vector<int32_t>>();
    const auto prompt = entry["prompt"].get<std::string>();
    EXPECT_EQ(must_encode(*tokenizer, prompt, false, true), ids);
    std::vector<int32_t> all = ids;
    all.insert(all.end(), greedy.begin(), greedy.end());
    EXPECT_EQ(must_decode(*tokenizer, all, false), entry["text"].get<std::string>());
  }
}

// Text of many kinds comes back byte for byte, and the ways to write a vocabulary keep its ids.
TEST(Reference, StorybooksSurviveEveryForm) {
  const std::string folder = shared_file("models/storyteller-29m"),
                    text_path = shared_file("data/storybooks/valid.txt");
  if (folder.empty() || text_path.empty()) GTEST_SKIP() << "the storyteller or its books are not there";
  const auto tokenizer = Tokenizer::load(folder);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const std::string text = *read_file(text_path);
  const auto ids = must_encode(*tokenizer, text);
  EXPECT_EQ(must_decode(*tokenizer, ids), text);
  TemporaryFolder written;
  ASSERT_TRUE(vocabulary_to_folder(vocabulary_of(*tokenizer), written.path()));
  const auto from_folder = Tokenizer::load(written.path());
  ASSERT_TRUE(from_folder) << from_folder.error().message;
  EXPECT_EQ(must_encode(*from_folder, text), ids);
  auto writer = GgufWriter::create(written / "v.gguf");
  ASSERT_TRUE(writer && vocabulary_to_gguf(vocabulary_of(*tokenizer), *writer) && writer->begin_data() &&
              writer->finish());
  const auto from_gguf = Tokenizer::load(written / "v.gguf");
  ASSERT_TRUE(from_gguf) << from_gguf.error().message;
  EXPECT_EQ(must_encode(*from_gguf, text), ids);
}

INSTANTIATE_TEST_SUITE_P(Published, ReferenceVectors, ::testing::Values("gpt-2.gguf", "llama-spm.gguf"));

}  // namespace
}  // namespace bitnet
