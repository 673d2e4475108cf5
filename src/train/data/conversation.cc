#include "train/data/conversation.h"

#include "format/json.h"
#include "format/text.h"
#include "tokenizer/tokenizer_impl.h"

#include <numeric>

namespace bitnet {
namespace {

void append(MarkedTokens& tokens, std::span<const int32_t> ids, bool counted) {
  tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
  tokens.counted.insert(tokens.counted.end(), ids.size(), uint8_t(counted));
}

Result<std::vector<ChatMessage>> messages_of(const Json& list, const char* role_key, const char* content_key,
                                             const std::string& name) {
  if (!list.is_array()) return invalid_input("{}: the conversation is not a list of messages", name);
  std::vector<ChatMessage> messages;
  for (const Json& json : list) {
    if (!json.is_object()) return invalid_input("{}: message {} is not an object", name, messages.size() + 1);
    ChatMessage message;
    BN_ASSIGN_OR_RETURN(message.role, json_string(json, role_key, name));
    BN_ASSIGN_OR_RETURN(message.content, json_string(json, content_key, name));
    if (message.role == "human") message.role = "user";
    if (message.role == "gpt") message.role = "assistant";
    messages.push_back(std::move(message));
  }
  return messages;
}

Result<std::vector<ChatMessage>> messages_of_instruction(const Json& json, const std::string& name) {
  BN_ASSIGN_OR_RETURN(std::string question, json_string(json, "instruction", name));
  BN_ASSIGN_OR_RETURN(const std::string answer, json_string(json, "output", name));
  if (json.contains("input")) {
    BN_ASSIGN_OR_RETURN(const std::string input, json_string(json, "input", name));
    if (!input.empty()) question += "\n\n" + input;
  }
  return std::vector<ChatMessage>{{"user", question}, {"assistant", answer}};
}

Result<MarkedTokens> encode_messages(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                     const std::string& name) {
  auto turns = encode_turns(tokenizer, messages);
  if (!turns) {
    turns.error().add_context(name);
    return std::move(turns.error());
  }
  MarkedTokens tokens;
  for (const ChatTurn& turn : *turns) append(tokens, turn.ids, turn.is_reply);
  return tokens;
}

Result<MarkedTokens> encode_completion(const Tokenizer& tokenizer, const Json& json, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const std::string prompt, json_string(json, "prompt", name));
  BN_ASSIGN_OR_RETURN(const std::string completion, json_string(json, "completion", name));
  EncodeOptions plain;
  plain.add_bos = false;
  MarkedTokens tokens;
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt_ids, tokenizer.encode(prompt));
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> completion_ids, tokenizer.encode(completion, plain));
  append(tokens, prompt_ids, false);
  append(tokens, completion_ids, true);
  if (const auto end = tokenizer.eos_id()) append(tokens, {&*end, 1}, true);
  return tokens;
}

Result<MarkedTokens> encode_json(const Tokenizer& tokenizer, const Json& json, const std::string& name) {
  if (json.contains("prompt")) return encode_completion(tokenizer, json, name);
  std::vector<ChatMessage> messages;
  if (json.contains("messages")) {
    BN_ASSIGN_OR_RETURN(messages, messages_of(json["messages"], "role", "content", name));
  } else if (json.contains("conversations")) {
    BN_ASSIGN_OR_RETURN(messages, messages_of(json["conversations"], "from", "value", name));
  } else if (json.contains("instruction")) {
    BN_ASSIGN_OR_RETURN(messages, messages_of_instruction(json, name));
  } else {
    return invalid_input("{}: has none of \"messages\", \"conversations\", \"instruction\" and \"prompt\"", name);
  }
  return encode_messages(tokenizer, messages, name);
}

}  // namespace

int64_t MarkedTokens::n_counted() const { return std::accumulate(counted.begin(), counted.end(), int64_t{0}); }

Result<MarkedTokens> encode_conversation(const Tokenizer& tokenizer, std::string_view line, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const Json json, parse_json(line, name));
  if (!json.is_object()) return invalid_input("{}: is not a JSON object", name);
  BN_ASSIGN_OR_RETURN(MarkedTokens tokens, encode_json(tokenizer, json, name));
  if (tokens.n_counted() == 0) return invalid_input("{}: holds no reply of the assistant", name);
  return tokens;
}

}  // namespace bitnet
