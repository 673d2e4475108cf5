// Statements: the tags of a template.

#include "tokenizer/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

namespace bitnet::jinja {

namespace {

class StatementParser {
 public:
  explicit StatementParser(TokenStream& tokens) : t_(tokens) {}

  // Up to one of the tags `ends`, whose {% and name are consumed and whose name is `end`; up to the end of the
  // template where `ends` is empty.
  Result<Body> body(std::initializer_list<std::string_view> ends, std::string* end) {
    BN_RETURN_IF_ERROR(t_.enter());
    const Nesting nesting(t_);
    Body out;
    while (!t_.at(TokenKind::kEnd)) {
      if (t_.at(TokenKind::kOpenTag) && t_.peek(1).kind == TokenKind::kName &&
          std::find(ends.begin(), ends.end(), t_.peek(1).text) != ends.end()) {
        t_.next();
        *end = t_.next().text;
        return out;
      }
      BN_RETURN_IF_ERROR(t_.count_node());
      BN_ASSIGN_OR_RETURN(auto statement, parse_statement());
      out.push_back(std::move(statement));
    }
    if (ends.size() > 0) return t_.error("a tag is never closed: {{% {} %}} is missing", *std::prev(ends.end()));
    return out;
  }

 private:
  using StmtPtr = std::unique_ptr<Stmt>;

  StmtPtr make(StmtKind kind) {
    auto statement = std::make_unique<Stmt>();
    statement->kind = kind;
    statement->line = t_.line();
    return statement;
  }
  Status close_tag() { return t_.expect(TokenKind::kCloseTag, "%}"); }

  // The body behind the tag that stands here, and the whole closing tag.
  Status block(Body& out, std::string_view end_tag) {
    std::string end;
    BN_RETURN_IF_ERROR(close_tag());
    BN_ASSIGN_OR_RETURN(out, body({end_tag}, &end));
    return close_tag();
  }

  Result<StmtPtr> parse_statement() {
    if (t_.at(TokenKind::kText)) {
      StmtPtr out = make(StmtKind::kText);
      out->text = t_.next().text;
      return out;
    }
    if (t_.at(TokenKind::kOpenPrint)) {
      t_.next();
      StmtPtr out = make(StmtKind::kPrint);
      BN_ASSIGN_OR_RETURN(out->value, parse_tuple(t_));
      BN_RETURN_IF_ERROR(t_.expect(TokenKind::kClosePrint, "}}"));
      return out;
    }
    t_.next();
    return parse_tag();
  }

  Result<StmtPtr> parse_tag() {
    if (t_.skip_name("if")) return parse_if();
    if (t_.skip_name("for")) return parse_for();
    if (t_.skip_name("set")) return parse_set();
    if (t_.skip_name("macro")) return parse_macro();
    if (t_.skip_name("with")) return parse_with();
    if (t_.skip_name("filter")) return parse_filter_block();
    if (t_.skip_name("generation")) {
      StmtPtr out = make(StmtKind::kScope);
      BN_RETURN_IF_ERROR(block(out->body, "endgeneration"));
      return out;
    }
    const bool is_break = t_.at_name("break");
    if (is_break || t_.at_name("continue")) {
      if (loop_depth_ == 0) return t_.error("'{}' outside of a loop", t_.peek().text);
      StmtPtr out = make(is_break ? StmtKind::kBreak : StmtKind::kContinue);
      t_.next();
      BN_RETURN_IF_ERROR(close_tag());
      return out;
    }
    if (!t_.at(TokenKind::kName)) return t_.unexpected();
    return t_.error("there is no tag '{}'", t_.peek().text);
  }

  Result<StmtPtr> parse_if() {
    StmtPtr out = make(StmtKind::kIf);
    std::string end = "elif";
    while (end != "endif") {
      Branch branch;
      const bool is_else = end == "else";
      if (!is_else) {
        BN_ASSIGN_OR_RETURN(branch.condition, parse_tuple(t_, false));
      }
      BN_RETURN_IF_ERROR(close_tag());
      if (is_else) {
        BN_ASSIGN_OR_RETURN(branch.body, body({"endif"}, &end));
      } else {
        BN_ASSIGN_OR_RETURN(branch.body, body({"elif", "else", "endif"}, &end));
      }
      out->branches.push_back(std::move(branch));
    }
    BN_RETURN_IF_ERROR(close_tag());
    return out;
  }

  // `a`, `a, b` or `(a, b)`; a lone name may have an attribute: `ns.a`.
  Status parse_targets(Stmt& out) {
    const bool in_brackets = t_.skip_operator("(");
    while (true) {
      BN_ASSIGN_OR_RETURN(std::string name, t_.expect_any_name());
      static constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False", "None"};
      if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
        return t_.error("cannot assign to '{}'", name);
      }
      out.targets.push_back({std::move(name), {}});
      if (!t_.skip_operator(",")) break;
      out.unpacks = true;
      if (!t_.at(TokenKind::kName)) break;
    }
    if (in_brackets) BN_RETURN_IF_ERROR(t_.expect_operator(")"));
    return ok();
  }

  Result<StmtPtr> parse_for() {
    StmtPtr out = make(StmtKind::kFor);
    BN_RETURN_IF_ERROR(parse_targets(*out));
    BN_RETURN_IF_ERROR(t_.expect_name("in"));
    BN_ASSIGN_OR_RETURN(out->value, parse_tuple(t_, false));
    if (t_.skip_name("if")) {
      BN_ASSIGN_OR_RETURN(out->condition, parse_expression(t_));
    }
    if (t_.at_name("recursive")) return t_.error("recursive loops are not supported");
    BN_RETURN_IF_ERROR(close_tag());
    std::string end;
    ++loop_depth_;
    BN_ASSIGN_OR_RETURN(out->body, body({"else", "endfor"}, &end));
    --loop_depth_;
    BN_RETURN_IF_ERROR(end == "else" ? block(out->orelse, "endfor") : close_tag());
    return out;
  }

  Result<StmtPtr> parse_set() {
    StmtPtr out = make(StmtKind::kSet);
    BN_RETURN_IF_ERROR(parse_targets(*out));
    if (!out->unpacks && t_.skip_operator(".")) {
      BN_ASSIGN_OR_RETURN(out->targets[0].attribute, t_.expect_any_name());
    }
    if (t_.skip_operator("=")) {
      BN_ASSIGN_OR_RETURN(out->value, parse_tuple(t_));
      BN_RETURN_IF_ERROR(close_tag());
      return out;
    }
    if (out->unpacks) return t_.error("a block can be set to one name only");
    out->kind = StmtKind::kSetBlock;
    while (t_.skip_operator("|")) {
      BN_ASSIGN_OR_RETURN(out->value, parse_filter(t_, std::move(out->value)));
    }
    BN_RETURN_IF_ERROR(isolated_block(out->body, "endset"));
    return out;
  }

  Result<StmtPtr> parse_filter_block() {
    StmtPtr out = make(StmtKind::kFilterBlock);
    do {
      BN_ASSIGN_OR_RETURN(out->value, parse_filter(t_, std::move(out->value)));
    } while (t_.skip_operator("|"));
    BN_RETURN_IF_ERROR(isolated_block(out->body, "endfilter"));
    return out;
  }

  // A body that break and continue cannot leave.
  Status isolated_block(Body& out, std::string_view end_tag) {
    const int outer = std::exchange(loop_depth_, 0);
    BN_RETURN_IF_ERROR(block(out, end_tag));
    loop_depth_ = outer;
    return ok();
  }

  Result<StmtPtr> parse_with() {
    StmtPtr out = make(StmtKind::kScope);
    while (!t_.at(TokenKind::kCloseTag)) {
      if (!out->assignments.empty()) BN_RETURN_IF_ERROR(t_.expect_operator(","));
      BN_ASSIGN_OR_RETURN(std::string name, t_.expect_any_name());
      BN_RETURN_IF_ERROR(t_.expect_operator("="));
      BN_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(t_));
      out->assignments.emplace_back(std::move(name), std::move(value));
    }
    BN_RETURN_IF_ERROR(block(out->body, "endwith"));
    return out;
  }

  Result<StmtPtr> parse_macro() {
    StmtPtr out = make(StmtKind::kMacro);
    out->macro = std::make_unique<Macro>();
    BN_ASSIGN_OR_RETURN(out->macro->name, t_.expect_any_name());
    BN_RETURN_IF_ERROR(t_.expect_operator("("));
    while (!t_.skip_operator(")")) {
      if (!out->macro->parameters.empty()) BN_RETURN_IF_ERROR(t_.expect_operator(","));
      BN_ASSIGN_OR_RETURN(std::string parameter, t_.expect_any_name());
      out->macro->parameters.push_back(std::move(parameter));
      if (t_.skip_operator("=")) {
        BN_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(t_));
        out->macro->defaults.push_back(std::move(value));
      } else if (!out->macro->defaults.empty()) {
        return t_.error("a parameter without default follows one that has one");
      }
    }
    BN_RETURN_IF_ERROR(isolated_block(out->macro->body, "endmacro"));
    return out;
  }

  TokenStream& t_;
  int loop_depth_ = 0;
};

}  // namespace

Result<Template> parse_template(const std::string& source, std::string name) {
  BN_ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize(source, name));
  TokenStream stream(std::move(tokens), name);
  Template out;
  BN_ASSIGN_OR_RETURN(out.body, StatementParser(stream).body({}, nullptr));
  out.name = std::move(name);
  return out;
}

}  // namespace bitnet::jinja
