#pragma once

#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/lexer.h"

namespace bitnet::jinja {

inline constexpr int kMaxNesting = 128;    // brackets, tags and operators open at once
inline constexpr int kMaxTreeDepth = 200;  // also chains such as a + b + c + ...
inline constexpr size_t kMaxNodes = 100'000;

// What expressions and statements parse with: the tokens, and the counts that bound the tree.
class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_.back(); }
  int line() const { return peek().line; }
  bool at(TokenKind kind) const { return peek().kind == kind; }
  bool at_operator(std::string_view op) const { return at(TokenKind::kOperator) && peek().text == op; }
  bool at_name(std::string_view name) const { return at(TokenKind::kName) && peek().text == name; }
  bool skip_operator(std::string_view op) { return at_operator(op) && advance(); }
  bool skip_name(std::string_view name) { return at_name(name) && advance(); }

  Status expect_operator(std::string_view op);
  Status expect_name(std::string_view name);
  Status expect(TokenKind kind, std::string_view what);
  Result<std::string> expect_any_name();

  template <class... Args>
  Error error(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(fmt::format(format, std::forward<Args>(args)...));
  }
  Error fail(const std::string& message) const;
  Error unexpected() const;  // the token here cannot stand here

  // Nesting of the parser itself; leave() is due after a successful enter().
  Status enter();
  void leave() { --nesting_; }
  // Counts a finished node and sets its depth.
  Result<ExprPtr> finish(ExprPtr node);
  // The same after one more argument.
  Result<ExprPtr> extend(ExprPtr node);
  Status count_node();

 private:
  bool advance() {
    ++at_;
    return true;
  }
  std::vector<Token> tokens_;
  const std::string& name_;
  size_t at_ = 0;
  int nesting_ = 0;
  size_t n_nodes_ = 0;
};

class Nesting {
 public:
  explicit Nesting(TokenStream& tokens) : tokens_(tokens) {}
  ~Nesting() { tokens_.leave(); }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  TokenStream& tokens_;
};

ExprPtr make_node(ExprKind kind, int line);
ExprPtr make_node(ExprKind kind, int line, ExprPtr first, ExprPtr second = nullptr);

// One expression; parse_tuple() also takes `a, b`. `conditional`: "x if y else z" belongs to it.
Result<ExprPtr> parse_expression(TokenStream& tokens, bool conditional = true);
Result<ExprPtr> parse_tuple(TokenStream& tokens, bool conditional = true, bool may_be_empty = false);
// What stands between operators: `-a.b[0](c) | filter is test`.
Result<ExprPtr> parse_operand(TokenStream& tokens);
// `name(arguments)` after a |, applied to `input`; input may be null.
Result<ExprPtr> parse_filter(TokenStream& tokens, ExprPtr input);

Result<Template> parse_template(const std::string& source, std::string name);

}  // namespace bitnet::jinja
