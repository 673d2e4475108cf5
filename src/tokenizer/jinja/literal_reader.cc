#include "tokenizer/jinja/literal_reader.h"

#include "tokenizer/jinja/text.h"
#include "tokenizer/unicode.h"

#include <algorithm>
#include <charconv>

namespace bitnet::jinja {

bool LiteralReader::fail(std::string problem) {
  problem_ = std::move(problem);
  return false;
}

bool LiteralReader::at_digit(size_t i) const { return i < s_.size() && is_digit(s_[i]); }

// 10_000 is a number, too.
void LiteralReader::read_digits(std::string& digits) {
  for (; at_digit(at_) || (at_ < s_.size() && s_[at_] == '_' && at_digit(at_ + 1)); ++at_) {
    if (s_[at_] != '_') digits += s_[at_];
  }
}

bool LiteralReader::read_number(Token& token) {
  const bool is_index = at_ > 0 && s_[at_ - 1] == '.';  // x.0.1 is an item of an item
  std::string& digits = token.text;
  bool is_float = false;
  read_digits(digits);
  if (!is_index && at_ < s_.size() && s_[at_] == '.' && at_digit(at_ + 1)) {
    is_float = true;
    digits += s_[at_++];
    read_digits(digits);
  }
  size_t exponent = at_ + 1;
  if (exponent < s_.size() && (s_[exponent] == '+' || s_[exponent] == '-')) ++exponent;
  if (at_ < s_.size() && (s_[at_] == 'e' || s_[at_] == 'E') && at_digit(exponent)) {
    is_float = true;
    digits += s_.substr(at_, exponent - at_);
    at_ = exponent;
    read_digits(digits);
  }
  token.kind = is_float ? TokenKind::kFloat : TokenKind::kInteger;
  const char* end = digits.data() + digits.size();
  const bool fits = is_float ? parse_double(digits, &token.number)
                             : std::from_chars(digits.data(), end, token.integer).ec == std::errc();
  return fits || fail("the number " + digits.substr(0, 40) + " is too large");
}

bool LiteralReader::read_string(Token& token) {
  const char quote = s_[at_++];
  while (at_ < s_.size() && s_[at_] != quote) {
    const char c = s_[at_++];
    if (c != '\\') {
      token.text += c;
    } else if (at_ < s_.size() && !read_escape(token.text)) {
      return false;
    }
  }
  if (at_ >= s_.size()) return fail("a string has no closing quote");
  ++at_;
  return true;
}

// Python's escapes, behind the backslash. An unknown one stays as it is.
bool LiteralReader::read_escape(std::string& out) {
  constexpr std::string_view kNamed = "\\'\"abfnrtv";
  constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
  const char c = s_[at_];
  if (const size_t named = kNamed.find(c); named != std::string_view::npos) {
    out += kMeaning[named];
    ++at_;
    return true;
  }
  if (c == '\n') {
    ++at_;
    return true;
  }
  const size_t n_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  const size_t begin = n_hex > 0 ? at_ + 1 : at_;
  size_t end = begin;
  if (n_hex > 0) {
    end = std::min(begin + n_hex, s_.size());
  } else {
    while (end < std::min(begin + 3, s_.size()) && s_[end] >= '0' && s_[end] <= '7') ++end;
  }
  if (n_hex == 0 && end == begin) {
    if (c == 'N') return fail("named characters \\N{...} are not supported");
    out += '\\';
    return true;
  }
  uint32_t code = 0;
  const auto parsed = std::from_chars(s_.data() + begin, s_.data() + end, code, n_hex > 0 ? 16 : 8);
  if (parsed.ec != std::errc() || parsed.ptr != s_.data() + end || (n_hex > 0 && end - begin != n_hex) ||
      code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
    return fail("a string has a bad character escape");
  }
  append_utf8(out, code);
  at_ = end;
  return true;
}

}  // namespace bitnet::jinja
