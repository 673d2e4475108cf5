// A conversation to token ids through the model's chat template.
#include "tokenizer/tokenizer_impl.h"

namespace bitnet {
namespace {

Result<std::vector<ChatSegment>> render_segments(const TokenizerImpl& impl, std::span<const ChatMessage> messages,
                                                 bool add_generation_prompt) {
  if (impl.vocabulary.chat_template.empty()) {
    return unsupported("{}: the model has no chat template", impl.name);
  }
  if (!impl.chat_template) return *impl.chat_error;
  const auto text_of = [&](std::optional<int32_t> id) {
    return id ? impl.vocabulary.tokens[size_t(*id)] : std::string();
  };
  return impl.chat_template->render(messages, add_generation_prompt, text_of(impl.vocabulary.bos_id),
                                    text_of(impl.vocabulary.eos_id));
}

// One text, so that words reach over the bounds of segments; only the template's own parts may spell special tokens.
struct ChatText {
  std::string text;
  std::vector<TokenizerImpl::Span> special;
};
Result<ChatText> render_text(const TokenizerImpl& impl, std::span<const ChatMessage> messages,
                             bool add_generation_prompt) {
  BN_ASSIGN_OR_RETURN(const auto segments, render_segments(impl, messages, add_generation_prompt));
  ChatText chat;
  for (const ChatSegment& segment : segments) {
    const size_t begin = chat.text.size();
    if (segment.from_template) chat.special.push_back({begin, begin + segment.text.size()});
    chat.text += segment.text;
  }
  return chat;
}

// Token ids of what follows the first n_bytes.
Result<std::vector<int32_t>> encode_rest(const TokenizerImpl& impl, const ChatText& chat, size_t n_bytes) {
  std::vector<TokenizerImpl::Span> special;
  for (const TokenizerImpl::Span& span : chat.special) {
    if (span.end > n_bytes) special.push_back({std::max(span.begin, n_bytes) - n_bytes, span.end - n_bytes});
  }
  std::vector<int32_t> ids;
  BN_RETURN_IF_ERROR(impl.encode(std::string_view(chat.text).substr(n_bytes), special, ids));
  return ids;
}

}  // namespace

Result<std::vector<ChatTurn>> encode_turns(const Tokenizer& tokenizer, std::span<const ChatMessage> messages) {
  const TokenizerImpl& impl = tokenizer.impl();
  std::vector<ChatTurn> turns;
  std::string done;
  const auto add = [&](size_t n_messages, bool is_reply) -> Status {
    BN_ASSIGN_OR_RETURN(ChatText chat, render_text(impl, messages.first(n_messages), !is_reply));
    if (!chat.text.starts_with(done)) {
      return unsupported(
          "{}: the chat template does not repeat a conversation's beginning when it goes on at message {}", impl.name,
          n_messages);
    }
    BN_ASSIGN_OR_RETURN(std::vector<int32_t> ids, encode_rest(impl, chat, done.size()));
    turns.push_back({std::move(ids), is_reply});
    done = std::move(chat.text);
    return ok();
  };
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    BN_RETURN_IF_ERROR(add(i, false));
    BN_RETURN_IF_ERROR(add(i + 1, true));
  }
  return turns;
}

Result<std::vector<int32_t>> Tokenizer::encode_chat(std::span<const ChatMessage> messages,
                                                    bool add_generation_prompt) const {
  BN_ASSIGN_OR_RETURN(const ChatText chat, render_text(*impl_, messages, add_generation_prompt));
  return encode_rest(*impl_, chat, 0);
}

Result<std::string> Tokenizer::render_chat(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  BN_ASSIGN_OR_RETURN(ChatText chat, render_text(*impl_, messages, add_generation_prompt));
  return std::move(chat.text);
}

}  // namespace bitnet
