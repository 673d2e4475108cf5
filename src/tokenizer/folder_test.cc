// Hugging Face folders: what the files beside the vocabulary say, and folders that we write.
#include "base/file.h"
#include "tokenizer/test_vocabulary.h"

namespace bitnet {
namespace {

using namespace testing_support;
using Ids = std::vector<int32_t>;

Vocabulary chatty(const std::string& pre = "llama-bpe") {
  Vocabulary v = byte_level_vocabulary(pre, {{"h", "e"}, {"l", "l"}, {"he", "ll"}},
                                       {"<s>", "</s>", "<|eot_id|>", "<pad>"}, {"<b>"});
  v.bos_id = 259;
  v.eos_id = 260;
  v.pad_id = 262;
  v.add_bos = true;
  v.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}";
  return v;
}

class Folder : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(write_file_atomically(folder_ / name, text));
  }
  Vocabulary must_read() {
    auto v = vocabulary_from_folder(folder_.path());
    if (v && *v) return **v;
    ADD_FAILURE() << (v ? "no vocabulary" : v.error().message);
    return {};
  }
  TemporaryFolder folder_;
};

TEST_F(Folder, HoldsNothing) {
  const auto v = vocabulary_from_folder(folder_.path());
  ASSERT_TRUE(v);
  EXPECT_FALSE(*v);
}

TEST_F(Folder, RoundTripOfEveryPreTokenizer) {
  for (const char* pre :
       {"gpt-2", "llama-bpe", "qwen2", "falcon", "starcoder", "deepseek-llm", "deepseek-coder", "default"}) {
    Vocabulary v = chatty(pre);
    v.lstrip_ids = {261};
    v.rstrip_ids = {263};
    v.ignore_merges = true;
    ASSERT_TRUE(vocabulary_to_folder(v, folder_.path()));
    const Vocabulary w = must_read();
    EXPECT_EQ(w.pre, pre);
    EXPECT_EQ(w.tokens, v.tokens);
    EXPECT_EQ(w.types, v.types);
    EXPECT_EQ(w.merges, v.merges);
    EXPECT_EQ(w.lstrip_ids, v.lstrip_ids);
    EXPECT_EQ(w.rstrip_ids, v.rstrip_ids);
    EXPECT_TRUE(w.ignore_merges);
    EXPECT_TRUE(w.add_bos);
    EXPECT_EQ(w.bos_id, v.bos_id);
    EXPECT_EQ(w.eos_id, v.eos_id);
    EXPECT_EQ(w.pad_id, v.pad_id);
    EXPECT_EQ(w.chat_template, v.chat_template);
    EXPECT_EQ(w.stop_ids, (Ids{260, 261}));
  }
}

TEST_F(Folder, RoundTripOfASentencePieceVocabulary) {
  const Vocabulary v =
      sentencepiece_vocabulary({{"\u2581", -9}, {"a", -8}, {"b", -7}, {"ab", -1}, {"\u2581ab", -3}, {"\u2581a", -2}});
  ASSERT_TRUE(vocabulary_to_folder(v, folder_.path()));
  const Vocabulary w = must_read();
  EXPECT_EQ(w.kind, VocabularyKind::kSentencePieceBpe);
  EXPECT_EQ(w.tokens, v.tokens);
  EXPECT_EQ(w.types, v.types);
  EXPECT_TRUE(w.add_space_prefix);
  EXPECT_EQ(w.unk_id, 0);
  for (const char* text : {"ab", "abab aab", " a b  ab\n", "\u00e9"}) {
    EXPECT_EQ(must_encode(must_make(w), text), must_encode(must_make(v), text)) << text;
  }
}

TEST_F(Folder, ConfigsDecide) {
  Vocabulary v = chatty();
  v.bos_id = v.eos_id = v.pad_id = std::nullopt;
  v.chat_template.clear();
  ASSERT_TRUE(vocabulary_to_folder(v, folder_.path()));
  write("tokenizer_config.json",
        R"({"bos_token": {"content": "<pad>"}, "eos_token": "</s>", "add_bos_token": false,
            "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]})");
  write("special_tokens_map.json", R"({"bos_token": "<s>", "pad_token": "<pad>"})");
  write("generation_config.json", R"({"eos_token_id": [259, 261]})");
  Vocabulary w = must_read();
  EXPECT_EQ(w.bos_id, 262);
  EXPECT_EQ(w.eos_id, 260);
  EXPECT_EQ(w.pad_id, 262);
  EXPECT_FALSE(w.add_bos);
  EXPECT_EQ(w.chat_template, "yes");
  EXPECT_EQ(w.stop_ids, (Ids{259, 260, 261}));
  write("chat_template.jinja", "from the file");
  write("generation_config.json", R"({"eos_token_id": 262})");
  w = must_read();
  EXPECT_EQ(w.chat_template, "from the file");
  EXPECT_EQ(w.stop_ids, (Ids{260, 261, 262}));
}

TEST_F(Folder, RefusesBadConfigs) {
  ASSERT_TRUE(vocabulary_to_folder(chatty(), folder_.path()));
  for (const char* text :
       {R"({"eos_token_id": 264})", R"({"eos_token_id": [-1]})", R"({"eos_token_id": "x"})", "[]", "{"}) {
    write("generation_config.json", text);
    const auto v = vocabulary_from_folder(folder_.path());
    ASSERT_FALSE(v) << text;
    EXPECT_NE(v.error().message.find("generation_config.json"), std::string::npos) << v.error().message;
  }
}

TEST_F(Folder, ChatKeepsWhatUsersTypeAsText) {
  ASSERT_TRUE(vocabulary_to_folder(chatty(), folder_.path()));
  const auto tokenizer = Tokenizer::load(folder_.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_TRUE(tokenizer->has_chat_template());
  const ChatMessage messages[] = {{"user", "<|eot_id|>"}, {"user", "hell"}};
  const auto ids = tokenizer->encode_chat(messages);
  ASSERT_TRUE(ids) << ids.error().message;
  Ids expected{259};
  for (const char c : std::string("<|eot_id|>")) expected.push_back(c);
  expected.insert(expected.end(), {261, 258, 261});
  EXPECT_EQ(*ids, expected);
  EXPECT_EQ(*tokenizer->render_chat(messages), "<s><|eot_id|><|eot_id|>hell<|eot_id|>");
}

// Words go on over the bounds between template and message.
TEST_F(Folder, ChatJoinsTextOfTemplateAndMessage) {
  Vocabulary v = chatty();
  v.chat_template = "{% for m in messages %}he{{ m.content }}{% endfor %}";
  const ChatMessage messages[] = {{"user", "ll"}};
  const auto ids = must_make(v).encode_chat(messages);
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(*ids, Ids{258});
  // Half a special token from either side is none.
  v.chat_template = "{% for m in messages %}<|eot{{ m.content }}{% endfor %}";
  const ChatMessage half[] = {{"user", "_id|>"}};
  const auto text = must_make(v).encode_chat(half);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(text->size(), 10u);
}

TEST_F(Folder, ChatTemplateThatDoesNotParse) {
  Vocabulary v = chatty();
  v.chat_template = "{% if %}";
  const Tokenizer tokenizer = must_make(v);
  ASSERT_EQ(vocabulary_of(tokenizer).notices.size(), 1u);
  EXPECT_EQ(must_encode(tokenizer, "hell"), Ids{258});
  const ChatMessage messages[] = {{"user", "ll"}};
  EXPECT_FALSE(tokenizer.encode_chat(messages));
  EXPECT_FALSE(tokenizer.render_chat(messages));
  v.chat_template.clear();
  const auto none = must_make(v).encode_chat(messages);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("no chat template"), std::string::npos) << none.error().message;
}

TEST_F(Folder, SentencePieceModelReplacesAnUnsupportedJson) {
  write("tokenizer.json", R"({"model": {"type": "Unigram"}})");
  EXPECT_FALSE(vocabulary_from_folder(folder_.path()));
  // One piece <unk>; BPE; no extra normalisation.
  write("tokenizer.model", std::string("\x0a\x09\x0a\x05<unk>\x18\x02"
                                       "\x12\x02\x18\x02"
                                       "\x1a\x02\x20\x00",
                                       19));
  const auto v = vocabulary_from_folder(folder_.path());
  ASSERT_TRUE(v) << v.error().message;
  EXPECT_EQ((*v)->tokens, std::vector<std::string>{"<unk>"});
  EXPECT_EQ((*v)->notices.size(), 1u);
}

}  // namespace
}  // namespace bitnet
