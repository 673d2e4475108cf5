// What the parsers of statements and expressions share.

#include "tokenizer/jinja/parser.h"

#include <algorithm>

namespace bitnet::jinja {

Error TokenStream::fail(const std::string& message) const {
  return invalid_input("the chat template of {}, line {}: {}", name_, line(), message);
}

Error TokenStream::unexpected() const {
  static constexpr const char* kNames[] = {"text",
                                           "{%",
                                           "%}",
                                           "{{",
                                           "}}",
                                           "the name",
                                           "the text",
                                           "the number",
                                           "the number",
                                           "",
                                           "the end of the template"};
  const Token& token = peek();
  const std::string text = token.text.empty() || token.kind == TokenKind::kText ? "" : " '" + token.text + "'";
  return error("unexpected {}{}", kNames[size_t(token.kind)], text);
}

Status TokenStream::expect_operator(std::string_view op) {
  if (skip_operator(op)) return ok();
  return error("expected '{}' before '{}'", op, peek().text);
}
Status TokenStream::expect_name(std::string_view name) {
  if (skip_name(name)) return ok();
  return error("expected '{}' before '{}'", name, peek().text);
}
Status TokenStream::expect(TokenKind kind, std::string_view what) {
  if (!at(kind)) return error("expected {} before '{}'", what, peek().text);
  advance();
  return ok();
}
Result<std::string> TokenStream::expect_any_name() {
  if (!at(TokenKind::kName)) return error("expected a name before '{}'", peek().text);
  return next().text;
}

Status TokenStream::enter() {
  if (nesting_ >= kMaxNesting) return error("nested more than {} deep", kMaxNesting);
  ++nesting_;
  return ok();
}

Status TokenStream::count_node() {
  if (++n_nodes_ > kMaxNodes) return error("the template has more than {} parts", kMaxNodes);
  return ok();
}

Result<ExprPtr> TokenStream::finish(ExprPtr node) {
  BN_RETURN_IF_ERROR(count_node());
  for (const ExprPtr& arg : node->args) node->depth = std::max(node->depth, arg ? arg->depth + 1 : 1);
  for (const auto& [name, arg] : node->named) node->depth = std::max(node->depth, arg->depth + 1);
  if (node->depth > kMaxTreeDepth) return error("an expression is more than {} operations deep", kMaxTreeDepth);
  return node;
}

Result<ExprPtr> TokenStream::extend(ExprPtr node) {
  BN_RETURN_IF_ERROR(count_node());
  node->depth = std::max(node->depth, node->args.back()->depth + 1);
  if (node->depth > kMaxTreeDepth) return error("an expression is more than {} operations deep", kMaxTreeDepth);
  return node;
}

ExprPtr make_node(ExprKind kind, int line) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExprPtr make_node(ExprKind kind, int line, ExprPtr first, ExprPtr second) {
  ExprPtr node = make_node(kind, line);
  node->args.push_back(std::move(first));
  if (second) node->args.push_back(std::move(second));
  return node;
}

}  // namespace bitnet::jinja
