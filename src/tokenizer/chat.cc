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

}  // namespace

Result<std::vector<int32_t>> Tokenizer::encode_chat(std::span<const ChatMessage> messages,
                                                    bool add_generation_prompt) const {
  BN_ASSIGN_OR_RETURN(const auto segments, render_segments(*impl_, messages, add_generation_prompt));
  // One text, so that words reach over the bounds of segments; only the template's own parts may spell special tokens.
  std::string text;
  std::vector<TokenizerImpl::Span> special;
  for (const ChatSegment& segment : segments) {
    if (segment.from_template) special.push_back({text.size(), text.size() + segment.text.size()});
    text += segment.text;
  }
  std::vector<int32_t> ids;
  BN_RETURN_IF_ERROR(impl_->encode(text, special, ids));
  return ids;
}

Result<std::string> Tokenizer::render_chat(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  BN_ASSIGN_OR_RETURN(const auto segments, render_segments(*impl_, messages, add_generation_prompt));
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  return text;
}

}  // namespace bitnet
