// tiktoken ranks, GGUF keys, Hugging Face folders, and which reader a file goes to.
#include "base/file.h"
#include "tokenizer/chat_template.h"
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

class Gguf : public Readers {
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
