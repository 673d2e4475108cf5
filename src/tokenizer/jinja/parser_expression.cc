// Operators by precedence, and "x if y else z".

#include "tokenizer/jinja/parser.h"

#include <algorithm>

namespace bitnet::jinja {

namespace {

// Loosest first. Prefix `not` stands between `and` and the comparisons.
enum Level { kOrLevel, kAndLevel, kNotLevel, kCompareLevel, kSumLevel, kConcatLevel, kProductLevel, kPowerLevel };

struct Infix {
  std::string_view text;
  bool is_word;
  int level;
  ExprKind kind;
  Op op;  // of comparisons and arithmetic
};

constexpr Infix kInfixes[] = {
    {"or", true, kOrLevel, ExprKind::kOr, {}},
    {"and", true, kAndLevel, ExprKind::kAnd, {}},
    {"in", true, kCompareLevel, ExprKind::kCompare, Op::kIn},
    {"not", true, kCompareLevel, ExprKind::kCompare, Op::kNotIn},  // before `in`
    {"==", false, kCompareLevel, ExprKind::kCompare, Op::kEq},
    {"!=", false, kCompareLevel, ExprKind::kCompare, Op::kNe},
    {"<", false, kCompareLevel, ExprKind::kCompare, Op::kLt},
    {"<=", false, kCompareLevel, ExprKind::kCompare, Op::kLe},
    {">", false, kCompareLevel, ExprKind::kCompare, Op::kGt},
    {">=", false, kCompareLevel, ExprKind::kCompare, Op::kGe},
    {"+", false, kSumLevel, ExprKind::kArithmetic, Op::kAdd},
    {"-", false, kSumLevel, ExprKind::kArithmetic, Op::kSub},
    {"~", false, kConcatLevel, ExprKind::kConcat, {}},
    {"*", false, kProductLevel, ExprKind::kArithmetic, Op::kMul},
    {"/", false, kProductLevel, ExprKind::kArithmetic, Op::kDiv},
    {"//", false, kProductLevel, ExprKind::kArithmetic, Op::kFloorDiv},
    {"%", false, kProductLevel, ExprKind::kArithmetic, Op::kMod},
    {"**", false, kPowerLevel, ExprKind::kArithmetic, Op::kPow},
};

// The operator that stands here, if it binds at least as tightly as `level`; null: none.
const Infix* infix_at(const TokenStream& tokens, int level) {
  for (const Infix& infix : kInfixes) {
    if (!(infix.is_word ? tokens.at_name(infix.text) : tokens.at_operator(infix.text))) continue;
    const Token& next = tokens.peek(1);
    if (infix.op == Op::kNotIn && (next.kind != TokenKind::kName || next.text != "in")) return nullptr;
    return infix.level >= level ? &infix : nullptr;
  }
  return nullptr;
}

// `left op right`. Arithmetic takes two operands; the others collect a chain, which `left` already is if `chain` is of
// the operator's kind.
Result<ExprPtr> combine(TokenStream& tokens, const Infix& infix, int line, ExprPtr left, ExprPtr right,
                        ExprKind* chain) {
  if (*chain == infix.kind && infix.kind != ExprKind::kArithmetic) {
    left->args.push_back(std::move(right));
    left->ops.push_back(infix.op);
    return tokens.extend(std::move(left));
  }
  *chain = infix.kind;
  ExprPtr node = make_node(infix.kind, line, std::move(left), std::move(right));
  node->ops.push_back(infix.op);
  return tokens.finish(std::move(node));
}

Result<ExprPtr> parse_level(TokenStream& tokens, int level);

Result<ExprPtr> parse_not(TokenStream& tokens) {
  BN_RETURN_IF_ERROR(tokens.enter());
  const Nesting nesting(tokens);
  const int line = tokens.next().line;
  BN_ASSIGN_OR_RETURN(ExprPtr operand, parse_level(tokens, kNotLevel));
  return tokens.finish(make_node(ExprKind::kNot, line, std::move(operand)));
}

// Operands joined by operators that bind at least as tightly as `level`; all of them associate to the left.
Result<ExprPtr> parse_level(TokenStream& tokens, int level) {
  const bool negates = level <= kNotLevel && tokens.at_name("not");
  BN_ASSIGN_OR_RETURN(ExprPtr left, negates ? parse_not(tokens) : parse_operand(tokens));
  ExprKind chain = ExprKind::kConstant;
  while (const Infix* infix = infix_at(tokens, level)) {
    const int line = tokens.next().line;
    if (infix->op == Op::kNotIn) tokens.next();
    BN_ASSIGN_OR_RETURN(ExprPtr right, parse_level(tokens, infix->level + 1));
    BN_ASSIGN_OR_RETURN(left, combine(tokens, *infix, line, std::move(left), std::move(right), &chain));
  }
  return left;
}

bool at_tuple_end(const TokenStream& tokens) {
  return tokens.at(TokenKind::kCloseTag) || tokens.at(TokenKind::kClosePrint) || tokens.at_operator(")") ||
         tokens.at_name("recursive");
}

}  // namespace

Result<ExprPtr> parse_expression(TokenStream& tokens, bool conditional) {
  BN_RETURN_IF_ERROR(tokens.enter());
  const Nesting nesting(tokens);
  BN_ASSIGN_OR_RETURN(ExprPtr value, parse_level(tokens, kOrLevel));
  while (conditional && tokens.at_name("if")) {
    ExprPtr node = make_node(ExprKind::kConditional, tokens.next().line, std::move(value));
    BN_ASSIGN_OR_RETURN(ExprPtr condition, parse_level(tokens, kOrLevel));
    ExprPtr otherwise;
    if (tokens.skip_name("else")) {
      BN_ASSIGN_OR_RETURN(otherwise, parse_expression(tokens));
    }
    node->args.push_back(std::move(condition));
    node->args.push_back(std::move(otherwise));
    BN_ASSIGN_OR_RETURN(value, tokens.finish(std::move(node)));
  }
  return value;
}

Result<ExprPtr> parse_tuple(TokenStream& tokens, bool conditional, bool may_be_empty) {
  ExprPtr node = make_node(ExprKind::kTuple, tokens.line());
  bool is_tuple = false;
  while (!at_tuple_end(tokens)) {
    BN_ASSIGN_OR_RETURN(ExprPtr item, parse_expression(tokens, conditional));
    node->args.push_back(std::move(item));
    if (!tokens.skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && node->args.size() == 1) return std::move(node->args[0]);
  if (!is_tuple && !may_be_empty) return tokens.unexpected();
  return tokens.finish(std::move(node));
}

}  // namespace bitnet::jinja
