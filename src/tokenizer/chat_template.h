#pragma once

#include "base/result.h"
#include "bitnet/tokenizer.h"

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

namespace jinja {
struct Template;
}

// A piece of a rendered conversation. Only a special token spelled wholly inside one `from_template` piece is that
// token; everything a user could have typed lies in pieces with from_template == false. Pieces do not bound words:
// "Assistant: " and the text after it are one stretch of plain text to the pre-tokenizer.
struct ChatSegment {
  std::string text;
  bool from_template;
};

// A model's chat template: a bounded interpreter of the Jinja subset that docs/chat-templates.md lists. Immutable;
// render() is thread-safe.
class ChatTemplate {
 public:
  // `name` is the model or file that errors speak of. Refuses syntax errors, unknown tags, filters and tests.
  static Result<ChatTemplate> parse(std::string source, std::string name);

  // Adjacent segments of one origin are merged; none is empty. A role the template cannot express, and a message whose
  // content it leaves out, are errors. The roles system, user, assistant and tool count as the template's own words,
  // any other role text as the user's.
  Result<std::vector<ChatSegment>> render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                          const std::string& bos_text, const std::string& eos_text) const;

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Template> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const jinja::Template> parsed_;
};

// The format BitNet b1.58 2B4T was trained on. Its published GGUF file carries another one, which never ends a turn.
inline constexpr std::string_view kBitNet2b4tTemplate =
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the role \\'' + message['role'] + '\\' is none of system, user and assistant') }}{% endif %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

}  // namespace bitnet
