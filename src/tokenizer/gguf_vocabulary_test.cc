// Vocabularies in GGUF keys: what is read, written, assumed, mended and refused.
#include "tokenizer/chat_template.h"
#include "tokenizer/test_vocabulary.h"

#include <algorithm>

namespace bitnet {
namespace {

using namespace testing_support;
using Ids = std::vector<int32_t>;

class Gguf : public ::testing::Test {
 protected:
  std::string write_gguf(const Vocabulary& v, const std::vector<std::pair<std::string, GgufValue>>& more = {}) {
    const std::string path = folder_ / "model.gguf";
    auto writer = GgufWriter::create(path);
    EXPECT_TRUE(writer);
    for (const auto& [key, value] : more) EXPECT_TRUE(writer->add_metadata(key, value));
    const Status status = vocabulary_to_gguf(v, *writer);
    EXPECT_TRUE(status) << status.error().message;
    EXPECT_TRUE(writer->begin_data());
    EXPECT_TRUE(writer->finish());
    return path;
  }
  // A file with these keys and no others.
  std::string write_keys(const std::vector<std::pair<std::string, GgufValue>>& keys) {
    const std::string path = folder_ / "keys.gguf";
    auto writer = GgufWriter::create(path);
    EXPECT_TRUE(writer);
    for (const auto& [key, value] : keys) EXPECT_TRUE(writer->add_metadata(key, value));
    EXPECT_TRUE(writer->begin_data());
    EXPECT_TRUE(writer->finish());
    return path;
  }
  TemporaryFolder folder_;
};

TEST_F(Gguf, RoundTripOfAByteLevelVocabulary) {
  Vocabulary v = byte_level_vocabulary("llama-bpe", {{"h", "e"}, {"l", "l"}}, {"<s>", "<|eot_id|>"}, {"<b>"});
  v.ignore_merges = true;
  v.bos_id = 258;
  v.eos_id = 259;
  v.pad_id = 0;
  v.add_bos = true;
  v.chat_template = "{{ bos_token }}";
  const auto read = Tokenizer::load(write_gguf(v));
  ASSERT_TRUE(read) << read.error().message;
  const Vocabulary& w = vocabulary_of(*read);
  EXPECT_EQ(w.tokens, v.tokens);
  EXPECT_EQ(w.types, v.types);
  EXPECT_EQ(w.merges, v.merges);
  EXPECT_EQ(w.pre, "llama-bpe");
  EXPECT_TRUE(w.ignore_merges);
  EXPECT_TRUE(w.add_bos);
  EXPECT_EQ(w.bos_id, 258);
  EXPECT_EQ(w.eos_id, 259);
  EXPECT_EQ(w.eot_id, 259);
  EXPECT_EQ(w.pad_id, 0);
  EXPECT_EQ(w.stop_ids, Ids{259});
  EXPECT_EQ(w.chat_template, v.chat_template);
  EXPECT_TRUE(w.notices.empty());
}

TEST_F(Gguf, KeepsWhatThePreTokenizersNameDoesNotSay) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  v.ignore_merges = true;
  EXPECT_EQ(must_encode(*Tokenizer::load(write_gguf(v)), "abc"), Ids{258});
  v.ignore_merges = false;
  EXPECT_EQ(must_encode(*Tokenizer::load(write_gguf(v)), "abc"), (Ids{'a', 256}));
}

TEST_F(Gguf, RanksBecomeMerges) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {{"a", "b"}, {"b", "c"}, {"ab", "c"}, {"c", "a"}, {"abc", "a"}});
  v.merges.clear();
  v.merge_by_rank = true;
  const Tokenizer by_rank = must_make(v);
  const auto by_merges = Tokenizer::load(write_gguf(v));
  ASSERT_TRUE(by_merges) << by_merges.error().message;
  EXPECT_EQ(vocabulary_of(*by_merges).merges.size(), 7u);  // abc and abca can be cut in two places
  for (const char* text : {"abc", "abca", "abcabcabca", "cabcab", "bcbcabcca"}) {
    EXPECT_EQ(must_encode(*by_merges, text), must_encode(by_rank, text)) << text;
  }
}

TEST_F(Gguf, RoundTripOfASentencePieceVocabulary) {
  Vocabulary v = sentencepiece_vocabulary({{"\u2581", -3}, {"a", -2}, {"\u2581a", -1}});
  v.add_space_prefix = false;
  const auto read = Tokenizer::load(write_gguf(v));
  ASSERT_TRUE(read) << read.error().message;
  const Vocabulary& w = vocabulary_of(*read);
  EXPECT_EQ(w.kind, VocabularyKind::kSentencePieceBpe);
  EXPECT_EQ(w.tokens, v.tokens);
  EXPECT_EQ(w.types, v.types);
  EXPECT_EQ(w.scores, v.scores);
  EXPECT_FALSE(w.add_space_prefix);
  EXPECT_EQ(w.unk_id, 0);
  v.merges = {{"\u2581", "a"}};
  auto writer = GgufWriter::create(folder_ / "x.gguf");
  EXPECT_FALSE(vocabulary_to_gguf(v, *writer));
}

TEST_F(Gguf, MissingPreTokenizerIsAssumedWithANotice) {
  const Vocabulary v = byte_level_vocabulary("gpt-2", {});
  const std::vector<std::pair<std::string, GgufValue>> keys = {
      {"general.architecture", std::string("bitnet")},
      {"tokenizer.ggml.model", std::string("gpt2")},
      {"tokenizer.ggml.tokens", GgufArray(v.tokens)},
      {"tokenizer.ggml.merges", GgufArray(std::vector<std::string>())}};
  const auto read = Tokenizer::load(write_keys(keys));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(vocabulary_of(*read).pre, "default");
  ASSERT_EQ(vocabulary_of(*read).notices.size(), 1u);
  EXPECT_NE(vocabulary_of(*read).notices[0].find("default"), std::string::npos);
  const auto chosen = Tokenizer::load(folder_ / "keys.gguf", {"qwen2"});
  ASSERT_TRUE(chosen) << chosen.error().message;
  EXPECT_EQ(vocabulary_of(*chosen).pre, "qwen2");
  EXPECT_TRUE(vocabulary_of(*chosen).notices.empty());
}

// The published 2B4T file: Llama 3's vocabulary, no tokenizer.ggml.pre, and a chat template of another model.
TEST_F(Gguf, BitNet2b4tIsMended) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {});
  for (size_t id = 256; id < 128256; ++id) v.tokens.push_back("t" + std::to_string(id));
  v.tokens[128000] = "<|begin_of_text|>";
  v.tokens[128001] = "<|end_of_text|>";
  v.tokens[128009] = "<|eot_id|>";
  std::vector<int32_t> types(v.tokens.size(), 1);
  std::fill(types.begin() + 128000, types.end(), 3);
  const auto read = Tokenizer::load(write_keys({{"general.architecture", std::string("bitnet-b1.58")},
                                                {"tokenizer.ggml.model", std::string("gpt2")},
                                                {"tokenizer.ggml.tokens", GgufArray(v.tokens)},
                                                {"tokenizer.ggml.token_type", GgufArray(types)},
                                                {"tokenizer.ggml.merges", GgufArray(std::vector<std::string>())},
                                                {"tokenizer.ggml.bos_token_id", uint32_t{128000}},
                                                {"tokenizer.ggml.eos_token_id", uint32_t{128001}},
                                                {"tokenizer.chat_template", std::string("{{ 'wrong' }}")}}));
  ASSERT_TRUE(read) << read.error().message;
  const Vocabulary& w = vocabulary_of(*read);
  EXPECT_EQ(w.pre, "llama-bpe");
  EXPECT_TRUE(w.ignore_merges);
  EXPECT_TRUE(w.add_bos);
  EXPECT_EQ(w.chat_template, kBitNet2b4tTemplate);
  EXPECT_EQ(w.notices.size(), 2u);
  EXPECT_EQ(w.stop_ids, (Ids{128001, 128009}));
  const ChatMessage messages[] = {{"user", " hi <|eot_id|> "}};
  const auto text = read->render_chat(messages);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text, "<|begin_of_text|>User: hi <|eot_id|><|eot_id|>Assistant: ");
  Ids expected{128000};
  for (const char c : std::string("User: hi <|eot_id|>")) expected.push_back(c);
  expected.push_back(128009);
  for (const char c : std::string("Assistant: ")) expected.push_back(c);
  const auto ids = read->encode_chat(messages);
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(*ids, expected);
}

TEST_F(Gguf, RefusesWhatItCannotRead) {
  const GgufValue gpt2 = std::string("gpt2"), tokens = GgufArray(std::vector<std::string>{"a", "b", "ab"});
  const GgufValue none = GgufArray(std::vector<std::string>());
  using Keys = std::vector<std::pair<std::string, GgufValue>>;
  const auto model = [](const char* name) {
    return std::pair<std::string, GgufValue>("tokenizer.ggml.model", std::string(name));
  };
  const std::pair<Keys, const char*> cases[] = {
      {{}, "no vocabulary"},
      {{model("bert"), {"tokenizer.ggml.tokens", tokens}}, "bert"},
      {{model("gpt2"), {"tokenizer.ggml.tokens", tokens}}, "tokenizer.ggml.merges"},
      {{model("gpt2"), {"tokenizer.ggml.tokens", none}, {"tokenizer.ggml.merges", none}}, "empty"},
      {{model("llama"), {"tokenizer.ggml.tokens", tokens}}, "tokenizer.ggml.scores"},
      {{model("gpt2"),
        {"tokenizer.ggml.tokens", tokens},
        {"tokenizer.ggml.merges", GgufArray(std::vector<std::string>{"ab"})}},
       "expected two tokens"},
      {{model("gpt2"),
        {"tokenizer.ggml.tokens", tokens},
        {"tokenizer.ggml.merges", none},
        {"tokenizer.ggml.pre", std::string("tekken")}},
       "known are"},
      {{model("gpt2"),
        {"tokenizer.ggml.tokens", tokens},
        {"tokenizer.ggml.merges", none},
        {"tokenizer.ggml.token_type", GgufArray(std::vector<int32_t>{1})}},
       "1 entries for 3 tokens"},
      {{model("gpt2"),
        {"tokenizer.ggml.tokens", tokens},
        {"tokenizer.ggml.merges", none},
        {"tokenizer.ggml.eos_token_id", uint32_t{3}}},
       "tokenizer.ggml.eos_token_id"},
      {{model("gpt2"),
        {"tokenizer.ggml.tokens", GgufArray(std::vector<std::string>{"a", "a"})},
        {"tokenizer.ggml.merges", none}},
       "both spelled"},
  };
  for (const auto& [keys, expected] : cases) {
    const auto read = Tokenizer::load(write_keys(keys));
    ASSERT_FALSE(read) << expected;
    EXPECT_NE(read.error().message.find(expected), std::string::npos) << read.error().message;
  }
}

}  // namespace
}  // namespace bitnet
