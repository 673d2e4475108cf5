#include "tokenizer/chat_template.h"

#include "tokenizer/jinja/evaluator.h"
#include "tokenizer/jinja/parser.h"

#include <algorithm>

namespace bitnet {

namespace {

using jinja::Origin;
using jinja::Text;
using jinja::Value;

Origin content_origin(size_t message) { return jinja::kFirstContentOrigin + static_cast<Origin>(message); }

// A known role is the program's word, not the user's: templates build tokens such as <|user|> from it.
Text role_text(const std::string& role) {
  static constexpr std::string_view kKnown[] = {"system", "user", "assistant", "tool"};
  const bool known = std::find(std::begin(kKnown), std::end(kKnown), role) != std::end(kKnown);
  return Text(role, known ? jinja::kTemplateOrigin : jinja::kRoleOrigin);
}

Result<Value> message_list(jinja::Run& run, std::span<const ChatMessage> messages) {
  std::vector<Value> items;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (std::max(messages[i].content.size(), messages[i].role.size()) > jinja::kMaxTextBytes) {
      return run.error("message {} has more than {} bytes", i + 1, jinja::kMaxTextBytes);
    }
    BN_ASSIGN_OR_RETURN(
        Value item, run.dict({{Value::text("role"), Value::text(role_text(messages[i].role))},
                              {Value::text("content"), Value::text(Text(messages[i].content, content_origin(i)))}}));
    items.push_back(std::move(item));
  }
  return run.list(std::move(items));
}

Status check_none_left_out(const std::string& name, std::span<const ChatMessage> messages, const Text& text) {
  std::vector<bool> appears(messages.size(), false);
  for (const jinja::Span& span : text.spans()) {
    if (span.origin >= jinja::kFirstContentOrigin) appears[span.origin - jinja::kFirstContentOrigin] = true;
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (appears[i] || jinja::is_all_space(messages[i].content)) continue;
    return invalid_input("the chat template of {} has no place for the role '{}' (message {})", name, messages[i].role,
                         i + 1);
  }
  return ok();
}

std::vector<ChatSegment> to_segments(const Text& text) {
  std::vector<ChatSegment> segments;
  const auto add = [&](size_t begin, size_t end, bool from_template) {
    if (begin == end) return;
    if (segments.empty() || segments.back().from_template != from_template) segments.push_back({"", from_template});
    segments.back().text.append(text.bytes(), begin, end - begin);
  };
  size_t at = 0;
  for (const jinja::Span& span : text.spans()) {
    add(at, span.begin, true);
    add(span.begin, span.end, false);
    at = span.end;
  }
  add(at, text.size(), true);
  return segments;
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string source, std::string name) {
  BN_ASSIGN_OR_RETURN(jinja::Template parsed, jinja::parse_template(source, std::move(name)));
  return ChatTemplate(std::make_shared<const jinja::Template>(std::move(parsed)));
}

Result<std::vector<ChatSegment>> ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                                      const std::string& bos_text, const std::string& eos_text) const {
  jinja::Run run(parsed_->name);
  BN_ASSIGN_OR_RETURN(Value list, message_list(run, messages));
  const jinja::Variables variables = {{"messages", std::move(list)},
                                      {"add_generation_prompt", Value::boolean(add_generation_prompt)},
                                      {"bos_token", Value::text(bos_text)},
                                      {"eos_token", Value::text(eos_text)},
                                      {"tools", Value::none()},
                                      {"documents", Value::none()}};
  BN_ASSIGN_OR_RETURN(const Text text, jinja::render(*parsed_, run, variables));
  BN_RETURN_IF_ERROR(check_none_left_out(parsed_->name, messages, text));
  return to_segments(text);
}

}  // namespace bitnet
