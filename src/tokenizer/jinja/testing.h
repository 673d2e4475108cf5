#pragma once

// For the tests of this folder.

#include "tokenizer/jinja/evaluator.h"
#include "tokenizer/jinja/parser.h"

#include <string>

namespace bitnet::jinja {

// What `source` writes, or "error: " and the message.
inline std::string render_text(const std::string& source, const Variables& variables = {}) {
  const Result<Template> parsed = parse_template(source, "T");
  if (!parsed) return "error: " + parsed.error().message;
  Run run(parsed->name);
  const Result<Text> text = render(*parsed, run, variables);
  return text ? text->bytes() : "error: " + text.error().message;
}

inline bool is_error(const std::string& rendered) { return rendered.rfind("error: ", 0) == 0; }

}  // namespace bitnet::jinja
