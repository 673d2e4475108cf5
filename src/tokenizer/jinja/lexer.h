#pragma once

#include "base/result.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet::jinja {

enum class TokenKind : uint8_t {
  kText,      // outside all tags, white space control applied
  kOpenTag,   // {%
  kCloseTag,  // %}
  kOpenPrint,
  kClosePrint,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

inline constexpr size_t kMaxSourceBytes = size_t{1} << 20;

// Cuts a template as Jinja 3 does with trim_blocks and lstrip_blocks, the setting of chat templates: a tag alone on a
// line leaves nothing of it. Comments are gone, {% raw %} is text. `name` is the model in errors. The last token is
// kEnd.
Result<std::vector<Token>> tokenize(const std::string& source, const std::string& name);

}  // namespace bitnet::jinja
