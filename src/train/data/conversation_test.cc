#include "train/data/conversation.h"

#include "bitnet/session.h"

#include "format/json.h"
#include "runtime/perplexity.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_impl.h"
#include "train/data/prepare.h"
#include "train/test_folder.h"
#include "train/trainer.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

constexpr int32_t kBegin = 256, kEndOfTurn = 257;

Vocabulary chat_vocabulary(std::string_view chat_template) {
  Vocabulary v = byte_vocabulary();
  v.tokens.insert(v.tokens.end(), {"<|begin_of_text|>", "<|eot_id|>"});
  v.types.insert(v.types.end(), 2, TokenType::kControl);
  v.bos_id = kBegin;
  v.eos_id = kEndOfTurn;
  v.chat_template = chat_template;
  return v;
}
Tokenizer chat_tokenizer(std::string_view chat_template = kBitNet2b4tTemplate) {
  return *make_tokenizer(chat_vocabulary(chat_template), "chat");
}

// What counts between brackets; special tokens as | and <.
std::string shown(const MarkedTokens& tokens) {
  std::string text;
  bool counted = false;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    if ((tokens.counted[i] != 0) != counted) text += (counted = !counted) ? '[' : ']';
    const int32_t id = tokens.ids[i];
    text += id == kBegin ? '<' : id == kEndOfTurn ? '|' : char(id);
  }
  return text + (counted ? "]" : "");
}
std::string shown(const std::string& line, const Tokenizer& tokenizer = chat_tokenizer()) {
  const auto tokens = encode_conversation(tokenizer, line, "line 7");
  EXPECT_TRUE(tokens) << tokens.error().message;
  return tokens ? shown(*tokens) : std::string();
}

constexpr const char* kTwoTurns =
    R"({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},)"
    R"( {"role": "assistant", "content": "Hello<|eot_id|>!"}, {"role": "user", "content": "Bye"},)"
    R"( {"role": "assistant", "content": "So long"}, {"role": "user", "content": "Gone?"}]})";

TEST(Conversation, RepliesCountWithTheEndOfTheirTurn) {
  // Of a reply's own text nothing becomes a special token; what follows the last reply is left out.
  EXPECT_EQ(shown(kTwoTurns),
            "<System: Be kind.|User: Hi|Assistant: [Hello<|eot_id|>!|]User: Bye|Assistant: [So long|]");
  EXPECT_EQ(shown(R"({"conversations": [{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "4"}]})"),
            "<User: 2+2|Assistant: [4|]");
  EXPECT_EQ(shown(R"({"instruction": "Add.", "input": "2 2", "output": "4"})"), "<User: Add.\n\n2 2|Assistant: [4|]");
  EXPECT_EQ(shown(R"({"instruction": "Sing.", "output": "La"})"), "<User: Sing.|Assistant: [La|]");
  EXPECT_EQ(shown(R"({"prompt": "Once ", "completion": "upon"})"), "Once [upon|]");
}

// What training shows the model is what chat gives it: the prompt's ids are those of encode_chat.
TEST(Conversation, PromptsAreThoseOfChat) {
  const Tokenizer tokenizer = chat_tokenizer();
  const std::vector<ChatMessage> messages = {{"system", "Be kind."}, {"user", "Hi"}};
  const auto prompt = tokenizer.encode_chat(messages);
  const auto tokens = encode_conversation(tokenizer, kTwoTurns, "line 1");
  ASSERT_TRUE(prompt && tokens);
  EXPECT_TRUE(std::equal(prompt->begin(), prompt->end(), tokens->ids.begin()));
  EXPECT_EQ(tokens->counted[prompt->size() - 1], 0);
  EXPECT_EQ(tokens->counted[prompt->size()], 1);
}

TEST(Conversation, WhatIsNoneIsRefusedByItsLine) {
  const Tokenizer tokenizer = chat_tokenizer();
  const auto refused = [&](const std::string& line, ErrorCode code, std::string_view part) {
    expect_error(encode_conversation(tokenizer, line, "a.jsonl: line 7"), code, part);
  };
  refused("[1]", ErrorCode::kInvalidInput, "a.jsonl: line 7: is not a JSON object");
  refused("{", ErrorCode::kInvalidInput, "a.jsonl: line 7");
  refused(R"({"text": "x"})", ErrorCode::kInvalidInput, "has none of \"messages\"");
  refused(R"({"messages": {"role": "user"}})", ErrorCode::kInvalidInput, "not a list of messages");
  refused(R"({"messages": [{"role": "user", "content": "x"}]})", ErrorCode::kInvalidInput, "no reply");
  refused(R"({"messages": [{"role": "user", "content": ["x"]}]})", ErrorCode::kInvalidInput, "content");
  refused(R"({"prompt": "x"})", ErrorCode::kInvalidInput, "completion");
  // A template that speaks of the end before it comes: "2 messages: ..." does not go on from "1 messages: ...".
  const Tokenizer counting =
      chat_tokenizer("{{ messages | length }} messages{% for m in messages %}{{ m['content'] }}{% endfor %}");
  expect_error(encode_conversation(counting, kTwoTurns, "line 7"), ErrorCode::kUnsupported, "does not repeat");
  expect_error(encode_conversation(chat_tokenizer(""), kTwoTurns, "line 7"), ErrorCode::kUnsupported,
               "no chat template");
}

std::string conversation_line(int i) {
  return Json{{"messages",
               {{{"role", "user"}, {"content", "number " + std::to_string(i % 10)}},
                {{"role", "assistant"}, {"content", "it is " + std::to_string(9 - i % 10)}}}}}
             .dump() +
         "\n";
}

class ConversationRun : public ::testing::Test {
 protected:
  ConversationRun() {
    std::string lines;
    for (int i = 0; i < 400; ++i) lines += conversation_line(i);
    folder_.write("talk.jsonl", lines);
    // The vocabulary alone is enough to prepare with.
    EXPECT_TRUE(vocabulary_to_folder(chat_vocabulary(kBitNet2b4tTemplate), vocabulary_folder()));
  }
  std::string vocabulary_folder() {
    std::filesystem::create_directories(folder_.file("vocabulary"));
    return folder_.file("vocabulary");
  }
  Result<PrepareReport> prepare(const std::string& name) {
    PrepareOptions options;
    options.inputs = {folder_.file("talk.jsonl")};
    options.tokenizer = vocabulary_folder();
    options.folder = folder_.file(name);
    options.corpus.conversations = true;
    options.corpus.valid_tail = 0.1;
    options.shard_tokens = 5000;
    return prepare_dataset(options);
  }
  TemporaryFolder folder_;
};

TEST_F(ConversationRun, MarksComeBackFromTheShards) {
  const auto report = prepare("data");
  ASSERT_TRUE(report) << report.error().message;
  const auto dataset = Dataset::open(folder_.file("data"));
  ASSERT_TRUE(dataset) << dataset.error().message;
  EXPECT_EQ(dataset->vocab_size(), 258);
  ASSERT_TRUE(dataset->verify());
  const Tokenizer tokenizer = chat_tokenizer();
  MarkedTokens first;
  for (int i = 0; i < 3; ++i) {
    const auto tokens = encode_conversation(tokenizer, conversation_line(360 + i), "line");  // where the tail begins
    first.ids.insert(first.ids.end(), tokens->ids.begin(), tokens->ids.end());
    first.counted.insert(first.counted.end(), tokens->counted.begin(), tokens->counted.end());
  }
  MarkedTokens found{std::vector<int32_t>(first.ids.size()), std::vector<uint8_t>(first.ids.size())};
  ASSERT_TRUE(dataset->sequence(Split::kValid, 0, 0, found.ids, found.counted));
  EXPECT_EQ(shown(found), shown(first));
  EXPECT_EQ(report->n_counted[0], 360u * 8u);  // "it is N" and the end of the turn
}

// The model learns the replies and nothing else: their loss falls far below that of the rest.
TEST_F(ConversationRun, TrainingLearnsTheReplies) {
  ASSERT_TRUE(prepare("data"));
  TrainOptions options;
  options.n_layers = 2;
  options.d_model = 64;
  options.d_ff = 96;
  options.n_heads = 4;
  options.n_ctx = 48;
  options.batch = 4;
  options.accumulation = 2;
  options.epochs = 10;
  options.warmup = 4;
  options.lr = 5e-3;
  options.threads = 1;
  options.eval_every = options.checkpoint_every = 0;
  options.export_gguf = false;
  options.dataset = folder_.file("data");
  options.run = folder_.file("run");
  auto trainer = Trainer::create(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  const auto dataset = Dataset::open(options.dataset);
  const int64_t n_sequences = dataset->n_sequences(Split::kTrain, options.n_ctx + 1);
  EXPECT_EQ((*trainer)->n_steps(), (10 * n_sequences + 7) / 8);
  std::vector<double> losses;
  TrainCallbacks callbacks;
  callbacks.on_step = [&](const StepReport& report) { losses.push_back(report.loss); };
  ASSERT_TRUE((*trainer)->run(callbacks));
  EXPECT_GT(losses.front(), 4.5);
  EXPECT_LT(losses.back(), 0.45);  // the digit alone is 2.3 / 8 nats where it is not seen to follow
  const auto valid = (*trainer)->validate();
  ASSERT_TRUE(valid);
  EXPECT_LT(*valid, 0.45);

  // What does not count has not been learned: "User: number" stays as unlikely as any bytes.
  const auto model = Model::load(options.run + "/model");
  ASSERT_TRUE(model) << model.error().message;
  const auto tokens = encode_conversation(*model->tokenizer(), conversation_line(3), "line");
  ASSERT_TRUE(tokens) << tokens.error().message;
  double loss[2] = {};
  int64_t n[2] = {};
  auto session = model->new_session({});
  ASSERT_TRUE(session);
  const auto sink = [&](int64_t position, std::span<const float> logits) {
    const auto next = size_t(position + 1);
    if (next == tokens->ids.size()) return true;
    const uint8_t counted = tokens->counted[next];
    loss[counted] += negative_log_likelihood(logits, tokens->ids[next]);
    ++n[counted];
    return true;
  };
  ASSERT_TRUE(session->append(tokens->ids, sink));
  EXPECT_LT(loss[1] / double(n[1]), 0.45);
  EXPECT_GT(loss[0] / double(n[0]), 3.0);
}

}  // namespace
}  // namespace bitnet
