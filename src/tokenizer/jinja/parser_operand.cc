// Operands: signs, names and literals, with the attributes, items, calls, filters and tests behind them.

#include "tokenizer/jinja/parser.h"

namespace bitnet::jinja {

namespace {

class OperandParser {
 public:
  explicit OperandParser(TokenStream& tokens) : t_(tokens) {}

  Result<ExprPtr> parse_unary(bool with_filters) {
    const bool minus = t_.at_operator("-");
    ExprPtr node;
    if (minus || t_.at_operator("+")) {
      BN_RETURN_IF_ERROR(t_.enter());
      const Nesting nesting(t_);
      const int line = t_.next().line;
      BN_ASSIGN_OR_RETURN(ExprPtr operand, parse_unary(false));
      node = make_node(minus ? ExprKind::kNegate : ExprKind::kPlus, line, std::move(operand));
      BN_ASSIGN_OR_RETURN(node, t_.finish(std::move(node)));
    } else {
      BN_ASSIGN_OR_RETURN(node, parse_primary());
    }
    BN_ASSIGN_OR_RETURN(node, parse_postfix(std::move(node)));
    if (!with_filters) return node;
    return parse_filters_and_tests(std::move(node));
  }

  Result<ExprPtr> filter(ExprPtr input) {
    const int line = t_.line();
    BN_ASSIGN_OR_RETURN(const std::string name, dotted_name());
    ExprPtr node = make_node(ExprKind::kFilter, line);
    node->args.push_back(std::move(input));
    node->filter = find_filter(name);
    if (!node->filter) return t_.error("there is no filter '{}'", name);
    if (t_.at_operator("(")) BN_RETURN_IF_ERROR(arguments(*node));
    return t_.finish(std::move(node));
  }

 private:
  Result<std::string> dotted_name() {
    BN_ASSIGN_OR_RETURN(std::string name, t_.expect_any_name());
    while (t_.skip_operator(".")) {
      BN_ASSIGN_OR_RETURN(const std::string part, t_.expect_any_name());
      name += "." + part;
    }
    return name;
  }

  Result<ExprPtr> parse_filters_and_tests(ExprPtr node) {
    while (true) {
      if (t_.skip_operator("|")) {
        BN_ASSIGN_OR_RETURN(node, filter(std::move(node)));
      } else if (t_.skip_name("is")) {
        BN_ASSIGN_OR_RETURN(node, parse_test(std::move(node)));
      } else if (t_.at_operator("(")) {
        BN_ASSIGN_OR_RETURN(node, parse_call(std::move(node)));
      } else {
        return node;
      }
    }
  }

  Result<ExprPtr> parse_test(ExprPtr input) {
    const int line = t_.line();
    const bool negated = t_.skip_name("not");
    BN_ASSIGN_OR_RETURN(const std::string name, dotted_name());
    ExprPtr node = make_node(ExprKind::kTest, line, std::move(input));
    node->test = find_test(name);
    if (!node->test) return t_.error("there is no test '{}'", name);
    const TokenKind kind = t_.peek().kind;
    const bool at_word = kind == TokenKind::kName && !t_.at_name("else") && !t_.at_name("or") && !t_.at_name("and");
    if (t_.at_operator("(")) {
      BN_RETURN_IF_ERROR(arguments(*node));
    } else if (at_word || kind == TokenKind::kString || kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
               t_.at_operator("[") || t_.at_operator("{")) {
      if (t_.at_name("is")) return t_.error("a test cannot follow a test");
      BN_ASSIGN_OR_RETURN(ExprPtr argument, parse_primary());
      BN_ASSIGN_OR_RETURN(argument, parse_postfix(std::move(argument)));
      node->args.push_back(std::move(argument));
    }
    BN_ASSIGN_OR_RETURN(node, t_.finish(std::move(node)));
    if (!negated) return node;
    return t_.finish(make_node(ExprKind::kNot, line, std::move(node)));
  }

  Result<ExprPtr> parse_postfix(ExprPtr node) {
    while (true) {
      if (t_.at_operator(".")) {
        BN_ASSIGN_OR_RETURN(node, parse_attribute(std::move(node)));
      } else if (t_.at_operator("[")) {
        BN_ASSIGN_OR_RETURN(node, parse_item(std::move(node)));
      } else if (t_.at_operator("(")) {
        BN_ASSIGN_OR_RETURN(node, parse_call(std::move(node)));
      } else {
        return node;
      }
    }
  }

  Result<ExprPtr> parse_attribute(ExprPtr object) {
    const int line = t_.next().line;
    if (t_.at(TokenKind::kInteger)) {
      ExprPtr index = make_node(ExprKind::kConstant, line);
      index->constant = Value::integer(t_.next().integer);
      return t_.finish(make_node(ExprKind::kItem, line, std::move(object), std::move(index)));
    }
    ExprPtr node = make_node(ExprKind::kAttribute, line, std::move(object));
    BN_ASSIGN_OR_RETURN(node->name, t_.expect_any_name());
    return t_.finish(std::move(node));
  }

  Result<ExprPtr> parse_item(ExprPtr object) {
    const int line = t_.next().line;
    ExprPtr parts[3];
    int n_colons = 0;
    while (!t_.at_operator("]")) {
      if (t_.at_operator(":") && n_colons < 2) {
        t_.next();
        ++n_colons;
      } else if (!parts[n_colons]) {
        BN_ASSIGN_OR_RETURN(parts[n_colons], parse_expression(t_));
      } else {
        return t_.unexpected();
      }
    }
    t_.next();
    ExprPtr node = make_node(n_colons > 0 ? ExprKind::kSlice : ExprKind::kItem, line, std::move(object));
    if (n_colons == 0 && !parts[0]) return t_.error("an index is missing in []");
    for (int i = 0; i < (n_colons > 0 ? 3 : 1); ++i) node->args.push_back(std::move(parts[i]));
    return t_.finish(std::move(node));
  }

  Result<ExprPtr> parse_call(ExprPtr callee) {
    ExprPtr node = make_node(ExprKind::kCall, t_.line(), std::move(callee));
    BN_RETURN_IF_ERROR(arguments(*node));
    return t_.finish(std::move(node));
  }

  // `(a, b, name=c)`, appended to the node.
  Status arguments(Expr& node) {
    t_.next();
    while (!t_.at_operator(")")) {
      if (t_.at_operator("*") || t_.at_operator("**")) return t_.error("* and ** arguments are not supported");
      const bool is_named =
          t_.at(TokenKind::kName) && t_.peek(1).kind == TokenKind::kOperator && t_.peek(1).text == "=";
      std::string name;
      if (is_named) {
        name = t_.next().text;
        t_.next();
      } else if (!node.named.empty()) {
        return t_.error("a positional argument follows a named one");
      }
      BN_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(t_));
      if (is_named) {
        node.named.emplace_back(std::move(name), std::move(value));
      } else {
        node.args.push_back(std::move(value));
      }
      if (!t_.at_operator(")")) BN_RETURN_IF_ERROR(t_.expect_operator(","));
    }
    t_.next();
    return ok();
  }

  Result<ExprPtr> parse_primary() {
    if (t_.at_operator("(")) {
      t_.next();
      BN_ASSIGN_OR_RETURN(ExprPtr inner, parse_tuple(t_, true, true));
      BN_RETURN_IF_ERROR(t_.expect_operator(")"));
      return inner;
    }
    if (t_.at_operator("[")) return parse_list();
    if (t_.at_operator("{")) return parse_dict();
    ExprPtr node = make_node(ExprKind::kConstant, t_.line());
    const Token& token = t_.peek();
    if (token.kind == TokenKind::kName) {
      node = parse_name();
    } else if (token.kind == TokenKind::kString) {
      std::string text;
      while (t_.at(TokenKind::kString)) text += t_.next().text;
      node->constant = Value::text(text);
    } else if (token.kind == TokenKind::kInteger) {
      node->constant = Value::integer(t_.next().integer);
    } else if (token.kind == TokenKind::kFloat) {
      node->constant = Value::number(t_.next().number);
    } else {
      return t_.unexpected();
    }
    return t_.finish(std::move(node));
  }

  ExprPtr parse_name() {
    const Token& token = t_.next();
    ExprPtr node = make_node(ExprKind::kConstant, token.line);
    if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
      node->constant = Value::boolean(token.text == "true" || token.text == "True");
    } else if (token.text == "none" || token.text == "None") {
      node->constant = Value::none();
    } else {
      node->kind = ExprKind::kName;
      node->name = token.text;
    }
    return node;
  }

  Result<ExprPtr> parse_list() {
    ExprPtr node = make_node(ExprKind::kList, t_.next().line);
    while (!t_.at_operator("]")) {
      BN_ASSIGN_OR_RETURN(ExprPtr item, parse_expression(t_));
      node->args.push_back(std::move(item));
      if (!t_.at_operator("]")) BN_RETURN_IF_ERROR(t_.expect_operator(","));
    }
    t_.next();
    return t_.finish(std::move(node));
  }

  Result<ExprPtr> parse_dict() {
    ExprPtr node = make_node(ExprKind::kDict, t_.next().line);
    while (!t_.at_operator("}")) {
      BN_ASSIGN_OR_RETURN(ExprPtr key, parse_expression(t_));
      BN_RETURN_IF_ERROR(t_.expect_operator(":"));
      BN_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(t_));
      node->args.push_back(std::move(key));
      node->args.push_back(std::move(value));
      if (!t_.at_operator("}")) BN_RETURN_IF_ERROR(t_.expect_operator(","));
    }
    t_.next();
    return t_.finish(std::move(node));
  }

  TokenStream& t_;
};

}  // namespace

Result<ExprPtr> parse_operand(TokenStream& tokens) { return OperandParser(tokens).parse_unary(true); }
Result<ExprPtr> parse_filter(TokenStream& tokens, ExprPtr input) {
  return OperandParser(tokens).filter(std::move(input));
}

}  // namespace bitnet::jinja
