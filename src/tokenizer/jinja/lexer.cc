#include "tokenizer/jinja/lexer.h"

#include "tokenizer/jinja/literal_reader.h"
#include "tokenizer/jinja/text.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace bitnet::jinja {

namespace {

bool is_name_start(char c) { return is_upper(c) || is_lower(c) || c == '_' || static_cast<unsigned char>(c) >= 0x80; }
bool is_name_char(char c) { return is_name_start(c) || is_digit(c); }

// Newlines as \n, the last one dropped.
std::string normalize_newlines(const std::string& source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string source, const std::string& name) : source_(std::move(source)), s_(source_), name_(name) {}

  Result<std::vector<Token>> run() {
    while (at_ < s_.size()) {
      const size_t open = find_open();
      add_text(open);
      if (open == s_.size()) break;
      const char kind = s_[open + 1];
      at_ = open + 2;
      if (peek('-') || peek('+')) ++at_;
      if (kind == '#') {
        BN_RETURN_IF_ERROR(skip_comment());
      } else if (kind == '%' && skip_raw_tag()) {
        BN_RETURN_IF_ERROR(add_raw());
      } else {
        BN_RETURN_IF_ERROR(add_tag(kind == '%'));
      }
    }
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  Error fail(const std::string& message) const {
    return invalid_input("the chat template of {}, line {}: {}", name_, line_, message);
  }
  bool peek(char c, size_t ahead = 0) const { return at_ + ahead < s_.size() && s_[at_ + ahead] == c; }
  bool starts_with(std::string_view text) const { return s_.substr(at_, text.size()) == text; }
  void add(TokenKind kind, std::string text = {}) { tokens_.push_back({kind, line_, std::move(text)}); }
  void advance_to(size_t end) {
    line_ += static_cast<int>(std::count(s_.begin() + at_, s_.begin() + end, '\n'));
    at_ = end;
  }

  size_t find_open() const {
    for (size_t i = at_; i + 1 < s_.size(); ++i) {
      if (s_[i] == '{' && (s_[i + 1] == '{' || s_[i + 1] == '%' || s_[i + 1] == '#')) return i;
    }
    return s_.size();
  }

  // The text up to the tag at `open`, less the white space that the tag takes: all of it for {%-, the indent of a
  // line that the tag starts for {% and {#.
  void add_text(size_t open) {
    size_t end = open;
    if (open + 2 < s_.size() && s_[open + 2] == '-') {
      end = at_ + strip_range(s_.substr(at_, open - at_), false, true).second;
    } else if (open < s_.size() && s_[open + 1] != '{' && !(open + 2 < s_.size() && s_[open + 2] == '+')) {
      const size_t newline = s_.substr(at_, open - at_).rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? at_ : at_ + newline + 1;
      const bool starts_line = newline != std::string_view::npos || at_ == 0 || s_[at_ - 1] == '\n';
      if (starts_line && is_all_space(s_.substr(line_begin, open - line_begin))) end = line_begin;
    }
    if (end > at_) add(TokenKind::kText, std::string(s_.substr(at_, end - at_)));
    advance_to(open);
  }

  // After the closing brackets: -%} takes all white space, %} one newline, +%} and }} nothing.
  void skip_after_close(char sign, bool takes_newline) {
    if (sign == '-') {
      size_t end = at_;
      for (size_t n = 0; (n = space_length(s_, end)) != 0;) end += n;
      advance_to(end);
    } else if (sign != '+' && takes_newline && peek('\n')) {
      advance_to(at_ + 1);
    }
  }

  Status skip_comment() {
    const size_t close = s_.find("#}", at_);
    if (close == std::string_view::npos) return fail("a comment {# has no end #}");
    const char sign = close > at_ ? s_[close - 1] : '\0';
    advance_to(close + 2);
    skip_after_close(sign, true);
    return ok();
  }

  // Whether `word %}` stands at `i`, behind a {%; `sign` is that of its end and `end` where it ends.
  bool match_word_tag(size_t i, std::string_view word, bool allows_plus, char* sign, size_t* end) const {
    for (size_t n = 0; (n = space_length(s_, i)) != 0;) i += n;
    if (s_.substr(i, word.size()) != word) return false;
    i += word.size();
    for (size_t n = 0; (n = space_length(s_, i)) != 0;) i += n;
    const bool has_sign = i < s_.size() && (s_[i] == '-' || (s_[i] == '+' && allows_plus));
    *sign = has_sign ? s_[i++] : '\0';
    *end = i + 2;
    return s_.substr(i, 2) == "%}";
  }

  bool skip_raw_tag() {
    char sign = 0;
    size_t end = 0;
    if (!match_word_tag(at_, "raw", false, &sign, &end)) return false;
    advance_to(end);
    skip_after_close(sign, false);
    return true;
  }

  Status add_raw() {
    for (size_t open = s_.find("{%", at_); open != std::string_view::npos; open = s_.find("{%", open + 2)) {
      char sign = 0;
      size_t end = 0;
      const bool has_sign = open + 2 < s_.size() && (s_[open + 2] == '-' || s_[open + 2] == '+');
      if (!match_word_tag(open + 2 + has_sign, "endraw", true, &sign, &end)) continue;
      add_text(open);
      advance_to(end);
      skip_after_close(sign, true);
      return ok();
    }
    return fail("{% raw %} has no {% endraw %}");
  }

  Status add_tag(bool is_block) {
    add(is_block ? TokenKind::kOpenTag : TokenKind::kOpenPrint);
    const std::string_view close = is_block ? "%}" : "}}";
    brackets_.clear();
    while (true) {
      skip_space();
      if (at_ >= s_.size()) return fail(is_block ? "a tag {% has no end %}" : "a print {{ has no end }}");
      if (brackets_.empty()) {
        const bool has_sign = peek('-') || (peek('+') && is_block);
        if (s_.substr(at_ + has_sign, 2) == close) {
          const char sign = has_sign ? s_[at_] : '\0';
          add(is_block ? TokenKind::kCloseTag : TokenKind::kClosePrint);
          at_ += has_sign + 2;
          skip_after_close(sign, is_block);
          return ok();
        }
      }
      BN_RETURN_IF_ERROR(add_inner());
    }
  }

  void skip_space() {
    size_t end = at_;
    for (size_t n = 0; (n = space_length(s_, end)) != 0;) end += n;
    advance_to(end);
  }

  Status add_inner() {
    const char c = s_[at_];
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < s_.size() && is_name_char(s_[end])) ++end;
      add(TokenKind::kName, std::string(s_.substr(at_, end - at_)));
      at_ = end;
      return ok();
    }
    if (is_digit(c)) return add_literal(TokenKind::kInteger);
    if (c == '\'' || c == '"') return add_literal(TokenKind::kString);
    return add_operator();
  }

  Status add_literal(TokenKind kind) {
    LiteralReader reader(s_, at_);
    Token token = {kind, line_, {}};
    const bool good = kind == TokenKind::kString ? reader.read_string(token) : reader.read_number(token);
    if (!good) return fail(reader.problem());
    tokens_.push_back(std::move(token));
    advance_to(reader.at());
    return ok();
  }

  Status add_operator() {
    static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!starts_with(op)) continue;
      const char c = op[0];
      if (c == '(' || c == '[' || c == '{') brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
      if (c == ')' || c == ']' || c == '}') {
        if (brackets_.empty() || brackets_.back() != c) return fail(fmt::format("unexpected '{}'", c));
        brackets_.pop_back();
      }
      add(TokenKind::kOperator, std::string(op));
      at_ += op.size();
      return ok();
    }
    return fail(fmt::format("unexpected character '{}'", s_.substr(at_, char_length(s_, at_))));
  }

  const std::string source_;
  const std::string_view s_;
  const std::string& name_;
  size_t at_ = 0;
  int line_ = 1;
  std::string brackets_;  // closing brackets still to come; the tag cannot end before them
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(const std::string& source, const std::string& name) {
  if (source.size() > kMaxSourceBytes) {
    return invalid_input("the chat template of {} has {} bytes, more than {}", name, source.size(), kMaxSourceBytes);
  }
  return Lexer(normalize_newlines(source), name).run();
}

}  // namespace bitnet::jinja
