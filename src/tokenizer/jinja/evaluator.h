#pragma once

#include "tokenizer/jinja/ast.h"

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet::jinja {

inline constexpr int kMaxMacroDepth = 64;
// Statements and expressions under evaluation at once, macros included: bounds the stack.
inline constexpr int kMaxEvalDepth = 300;

using Variables = std::vector<std::pair<std::string, Value>>;

// What the template writes with `variables` as its outermost names.
Result<Text> render(const Template& parsed, Run& run, const Variables& variables);

// One rendering of one template.
class Evaluator {
 public:
  Evaluator(Run& run, Text& out) : run_(run), out_(&out) { scopes_.emplace_back(); }

  void define(std::string_view name, Value value) { scopes_.back()[name] = std::move(value); }

  enum class Flow { kNext, kBreak, kContinue };
  Result<Flow> execute(const Body& body);
  Result<Value> eval(const Expr& e);

 private:
  using Scope = std::map<std::string_view, Value>;  // the names live in the syntax tree

  Result<Flow> execute(const Stmt& s);
  Result<Flow> execute_if(const Stmt& s);
  Result<Flow> execute_for(const Stmt& s);
  Result<Flow> execute_scope(const Stmt& s);
  Status execute_set(const Stmt& s);
  Status execute_print(const Stmt& s);
  Status execute_filter_block(const Stmt& s);
  Result<std::shared_ptr<const List>> loop_items(const Stmt& s);
  // The text that `body` writes, through the filters.
  Result<Value> block_text(const Body& body, const Expr* filters);
  Status assign(const std::vector<Target>& targets, bool unpacks, Value value);
  Status assign_attribute(const Target& target, Value value);
  Result<Value> lookup(const std::string& name);

  Result<Value> eval_kind(const Expr& e);
  Result<std::vector<Value>> eval_all(const Expr& e, size_t first);
  Result<Arguments> eval_arguments(const Expr& e);
  Result<Value> eval_dict(const Expr& e);
  Result<Value> eval_slice(const Expr& e);
  Result<Value> eval_item(const Expr& e);
  Result<Value> eval_call(const Expr& e);
  Result<Value> eval_filter(const Expr& e);
  Result<Value> eval_test(const Expr& e);
  Result<Value> eval_unary(const Expr& e);
  Result<Value> eval_arithmetic(const Expr& e);
  Result<Value> eval_concat(const Expr& e);
  Result<Value> eval_compare(const Expr& e);
  Result<Value> eval_logic(const Expr& e);
  Result<Value> eval_conditional(const Expr& e);
  Result<Value> call(const Value& callee, const Arguments& arguments);
  Result<Value> call_macro(const Macro& macro, const Arguments& arguments);

  Run& run_;
  Text* out_;
  std::vector<Scope> scopes_;
  size_t frame_ = 0;  // first scope of the macro that runs; it also sees scope 0
  int depth_ = 0;
  int macro_depth_ = 0;
  Value block_text_;  // what the innermost filter of a block takes
};

}  // namespace bitnet::jinja
