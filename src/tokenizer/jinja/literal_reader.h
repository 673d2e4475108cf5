#pragma once

#include "tokenizer/jinja/lexer.h"

#include <string>
#include <string_view>

namespace bitnet::jinja {

// Numbers and strings as Python writes them.
class LiteralReader {
 public:
  LiteralReader(std::string_view source, size_t at) : s_(source), at_(at) {}

  // Each fills `token` from the literal that starts here and moves behind it. False: see problem().
  bool read_number(Token& token);
  bool read_string(Token& token);

  size_t at() const { return at_; }
  const std::string& problem() const { return problem_; }

 private:
  bool fail(std::string problem);
  void read_digits(std::string& digits);
  bool read_escape(std::string& out);
  bool at_digit(size_t i) const;

  std::string_view s_;
  size_t at_;
  std::string problem_;
};

}  // namespace bitnet::jinja
