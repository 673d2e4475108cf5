#include "base/file.h"
#include "format/json.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/unicode.h"

namespace bitnet {
namespace {

using namespace testing_support;
using Ids = std::vector<int32_t>;

Json part(const char* text) { return Json::parse(text); }

// Bytes, then he (256), ll (257), hell (258); <s> (259) special, <b> (260) not.
Json byte_level_json() {
  const Vocabulary v = byte_level_vocabulary("gpt-2", {{"h", "e"}, {"l", "l"}, {"he", "ll"}}, {"<s>"}, {"<b>"});
  Json vocab = Json::object();
  for (size_t id = 0; id < 260; ++id) vocab[v.tokens[id]] = id;
  return {{"version", "1.0"},
          {"normalizer", nullptr},
          {"pre_tokenizer", part(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})")},
          {"added_tokens", part(R"([{"id": 259, "content": "<s>", "special": true},
                                    {"id": 260, "content": "<b>", "special": false}])")},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", part(R"(["h e", ["l", "l"], "he ll"])")}}}};
}

class TokenizerJson : public ::testing::Test {
 protected:
  Result<Vocabulary> read(const std::string& text, const std::string& pre = {}) {
    EXPECT_TRUE(write_file_atomically(folder_ / "tokenizer.json", text));
    return vocabulary_from_tokenizer_json(folder_ / "tokenizer.json", pre);
  }
  Result<Vocabulary> read(const Json& json, const std::string& pre = {}) { return read(json.dump(), pre); }
  Vocabulary must_read(const Json& json, const std::string& pre = {}) {
    auto v = read(json, pre);
    if (v) return *v;
    ADD_FAILURE() << v.error().message;
    return {};
  }
  void refuses(const Json& json, const std::string& expected, ErrorCode code = ErrorCode::kInvalidInput) {
    const auto v = read(json);
    ASSERT_FALSE(v) << expected;
    EXPECT_EQ(v.error().code, code) << v.error().message;
    EXPECT_NE(v.error().message.find("tokenizer.json"), std::string::npos) << v.error().message;
    EXPECT_NE(v.error().message.find(expected), std::string::npos) << v.error().message;
  }
  TemporaryFolder folder_;
};

TEST_F(TokenizerJson, ReadsTokensTypesAndMergesOfBothForms) {
  const Vocabulary v = must_read(byte_level_json());
  ASSERT_EQ(v.tokens.size(), 261u);
  EXPECT_EQ(v.pre, "gpt-2");
  EXPECT_EQ(v.merges, (std::vector<std::pair<std::string, std::string>>{{"h", "e"}, {"l", "l"}, {"he", "ll"}}));
  EXPECT_EQ(v.types[259], TokenType::kControl);
  EXPECT_EQ(v.types[260], TokenType::kUserDefined);
  EXPECT_EQ(v.bos_id, 259);
  EXPECT_FALSE(v.add_bos);
  const Tokenizer tokenizer = must_make(v);
  EXPECT_EQ(must_encode(tokenizer, "hell<b><s>"), (Ids{258, 260, '<', 's', '>'}));
  EXPECT_EQ(tokenizer.description(), "byte-level BPE, gpt-2, 261 tokens");
  EXPECT_EQ(tokenizer.find("he"), 256);
  EXPECT_EQ(tokenizer.find("nothing"), std::nullopt);
}

TEST_F(TokenizerJson, RecognisesPublishedPreTokenizers) {
  constexpr const char* kByteLevel = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})";
  const auto split = [](const char* expression) {
    return Json{{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
  };
  const auto sequence = [](std::vector<Json> parts) { return Json{{"type", "Sequence"}, {"pretokenizers", parts}}; };
  const char* llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const char* qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const Json gpt2 = part(R"({"type": "ByteLevel", "add_prefix_space": false})");
  const Json punctuation = part(R"({"type": "Punctuation", "behavior": "Contiguous"})");
  const std::pair<Json, const char*> cases[] = {
      {gpt2, "gpt-2"},
      {sequence({split(llama3), part(kByteLevel)}), "llama-bpe"},
      {sequence({split(qwen2), part(kByteLevel)}), "qwen2"},
      {sequence({part(R"({"type": "Digits", "individual_digits": true})"), gpt2}), "starcoder"},
      {sequence(
           {punctuation, gpt2, part(R"({"type": "Digits", "individual_digits": false})"), split("[0-9][0-9][0-9]")}),
       "falcon"},
      {sequence({split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                 part(R"({"type": "Digits", "individual_digits": true})"), part(kByteLevel)}),
       "deepseek-coder"},
  };
  for (const auto& [pre_tokenizer, expected] : cases) {
    Json json = byte_level_json();
    json["pre_tokenizer"] = pre_tokenizer;
    EXPECT_EQ(must_read(json).pre, expected);
  }
}

TEST_F(TokenizerJson, RefusesUnknownPreTokenizersUnlessToldWhichToUse) {
  Json json = byte_level_json();
  for (const char* text : {R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a+)+b"},
            "behavior": "Isolated"}, {"type": "ByteLevel", "add_prefix_space": false}]})",
                           R"({"type": "Whitespace"})", R"({"type": "ByteLevel", "add_prefix_space": true})",
                           R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})"}) {
    json["pre_tokenizer"] = part(text);
    refuses(json, "pre-tokenizer", ErrorCode::kUnsupported);
    EXPECT_EQ(must_read(json, "llama3").pre, "llama-bpe");
  }
  json["pre_tokenizer"] = nullptr;
  refuses(json, "ByteLevel", ErrorCode::kUnsupported);
  const auto unknown = read(json, "no-such");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("llama-bpe"), std::string::npos) << unknown.error().message;
}

TEST_F(TokenizerJson, RefusesOtherNormalizersAndModels) {
  Json json = byte_level_json();
  json["normalizer"] = part(R"({"type": "NFC"})");
  refuses(json, "NFC", ErrorCode::kUnsupported);
  json = byte_level_json();
  json["model"]["type"] = "Unigram";
  refuses(json, "Unigram", ErrorCode::kUnsupported);
  json = byte_level_json();
  json["model"]["dropout"] = 0.1;
  refuses(json, "dropout", ErrorCode::kUnsupported);
  json = byte_level_json();
  json["model"]["end_of_word_suffix"] = "</w>";
  refuses(json, "end_of_word_suffix", ErrorCode::kUnsupported);
  json = byte_level_json();
  json["added_tokens"][0]["single_word"] = true;
  refuses(json, "single_word", ErrorCode::kUnsupported);
}

TEST_F(TokenizerJson, RefusesBadFiles) {
  for (const char* text : {"", "[]", "1", "{", "{}", R"({"model": 1})", R"({"model": {"type": "BPE"}})",
                           R"({"model": {"vocab": []}})", R"({"model": {"vocab": {}, "merges": []}})"}) {
    EXPECT_FALSE(read(std::string(text))) << text;
  }
}

// A file of a gigabyte is refused by its size, before a byte of it is read.
TEST_F(TokenizerJson, RefusesAHugeFile) {
  EXPECT_TRUE(write_file_atomically(folder_ / "tokenizer.json", "{"));
  std::filesystem::resize_file(folder_ / "tokenizer.json", uint64_t{1} << 30);
  const auto v = vocabulary_from_tokenizer_json(folder_ / "tokenizer.json");
  ASSERT_FALSE(v);
  EXPECT_NE(v.error().message.find("1073741824"), std::string::npos) << v.error().message;
}

TEST_F(TokenizerJson, RefusesATokenTwice) {
  std::string text = byte_level_json().dump();
  const std::string entry = "\"he\":256";
  const size_t at = text.find(entry);
  ASSERT_NE(at, std::string::npos);
  text.insert(at, entry + ",");
  const auto v = read(text);
  ASSERT_FALSE(v);
  EXPECT_NE(v.error().message.find("he"), std::string::npos) << v.error().message;
}

TEST_F(TokenizerJson, RefusesTextThatIsNotUtf8) {
  std::string text = byte_level_json().dump();
  text.replace(text.find("\"he\":"), 5, "\"\xff\xfe\":");
  const auto v = read(text);
  ASSERT_FALSE(v);
  EXPECT_NE(v.error().message.find("UTF-8"), std::string::npos) << v.error().message;
}

TEST_F(TokenizerJson, RefusesBadIds) {
  for (const Json& id : {Json(-1), Json(261), Json(int64_t{1} << 31), Json(1.5), Json("1"), Json(nullptr)}) {
    Json json = byte_level_json();
    json["model"]["vocab"]["he"] = id;
    refuses(json, "he");
  }
  Json json = byte_level_json();
  json["model"]["vocab"]["he"] = 255;
  refuses(json, "both have the id 255");
  json = byte_level_json();
  json["model"]["vocab"].erase("he");
  refuses(json, "no token has the id 256");
  json = byte_level_json();
  json["added_tokens"][1]["id"] = 100;
  refuses(json, "both have the id 100");
  json = byte_level_json();
  json["added_tokens"][1]["content"] = "he";  // a text with two ids
  refuses(json, "both spelled");
  json = byte_level_json();
  json["model"]["vocab"][""] = 260;
  refuses(json, "empty");
}

TEST_F(TokenizerJson, RefusesBadMerges) {
  for (const char* merge : {R"("h")", R"("h e l")", R"("h  e")", R"(" e")", R"(["h"])", R"(["h", 1])", R"(1)"}) {
    Json json = byte_level_json();
    json["model"]["merges"].push_back(part(merge));
    refuses(json, "expected two tokens");
  }
  // What only the merges as a whole tell is found when the tokenizer is made.
  for (const auto& [merge, expected] : {std::pair("h x", "no token"), {"no he", "\"no\""}, {"he ll", "twice"}}) {
    Json json = byte_level_json();
    json["model"]["merges"].push_back(merge);
    const auto made = make_tokenizer(must_read(json), "tokenizer.json");
    ASSERT_FALSE(made) << merge;
    EXPECT_NE(made.error().message.find(expected), std::string::npos) << made.error().message;
  }
}

TEST_F(TokenizerJson, PostProcessorSaysWhetherBosIsAdded) {
  Json json = byte_level_json();
  json["post_processor"] = part(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
       {"Sequence": {"id": "A", "type_id": 0}}]}]})");
  EXPECT_TRUE(must_read(json).add_bos);
  EXPECT_EQ(must_encode(must_make(must_read(json)), "h", false, true), (Ids{259, 'h'}));
}

Json sentencepiece_json(const std::vector<std::string>& merges) {
  const Vocabulary v =
      sentencepiece_vocabulary({{"\u2581", 0}, {"a", 0}, {"b", 0}, {"c", 0}, {"bc", 0}, {"ab", 0}, {"\u2581ab", 0}});
  Json vocab = Json::object();
  for (size_t id = 0; id < v.tokens.size(); ++id) vocab[v.tokens[id]] = id;
  return {{"normalizer", part(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                  {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})")},
          {"pre_tokenizer", nullptr},
          {"added_tokens", part(R"([{"id": 0, "content": "<unk>", "special": true},
                                    {"id": 1, "content": "<s>", "special": true},
                                    {"id": 2, "content": "</s>", "special": true}])")},
          {"model",
           {{"type", "BPE"}, {"unk_token", "<unk>"}, {"byte_fallback", true}, {"vocab", vocab}, {"merges", merges}}}};
}

TEST_F(TokenizerJson, SentencePieceForm) {
  const Vocabulary v = must_read(sentencepiece_json({"b c", "a b", "\u2581 ab"}));
  EXPECT_EQ(v.kind, VocabularyKind::kSentencePieceBpe);
  EXPECT_TRUE(v.merges.empty());  // the scores say the same
  EXPECT_TRUE(v.add_space_prefix);
  EXPECT_TRUE(v.add_bos);
  EXPECT_EQ(v.unk_id, 0);
  EXPECT_EQ(v.bos_id, 1);
  EXPECT_EQ(v.eos_id, 2);
  EXPECT_EQ(v.types[3 + 0x41], TokenType::kByte);
  EXPECT_EQ(must_encode(must_make(v), "abc ab\n"), (Ids{259, 260, 263, 265, 3 + '\n'}));
}

TEST_F(TokenizerJson, SentencePieceMergesThatScoresCannotSay) {
  const Vocabulary v = must_read(sentencepiece_json({"b c", "a b"}));
  EXPECT_EQ(v.merges.size(), 2u);
  EXPECT_EQ(must_encode(must_make(v), "ab"), (Ids{259, 264}));
}

}  // namespace
}  // namespace bitnet
