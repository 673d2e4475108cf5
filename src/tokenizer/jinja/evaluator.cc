// Expressions. One function a kind, so that the stack frames of the recursion stay small.

#include "tokenizer/jinja/evaluator.h"

#include <algorithm>

namespace bitnet::jinja {

Result<Value> Evaluator::lookup(const std::string& name) {
  for (size_t i = scopes_.size(); i-- > frame_;) {
    BN_RETURN_IF_ERROR(run_.charge(1));
    if (const auto found = scopes_[i].find(name); found != scopes_[i].end()) return found->second;
  }
  if (const auto found = scopes_[0].find(name); found != scopes_[0].end()) return found->second;
  if (const Builtin* builtin = find_builtin(name)) return Value::of(builtin);
  return Value::undefined("'" + name + "'");
}

Result<Value> Evaluator::eval(const Expr& e) {
  BN_RETURN_IF_ERROR(run_.charge(1));
  if (depth_ >= kMaxEvalDepth) return run_.error("more than {} operations within each other", kMaxEvalDepth);
  run_.line = e.line;
  ++depth_;
  Result<Value> value = eval_kind(e);
  --depth_;
  return value;
}

Result<Value> Evaluator::eval_kind(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kConstant: return e.constant;
    case ExprKind::kName: return lookup(e.name);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      BN_ASSIGN_OR_RETURN(std::vector<Value> items, eval_all(e, 0));
      return run_.list(std::move(items), e.kind == ExprKind::kTuple);
    }
    case ExprKind::kDict: return eval_dict(e);
    case ExprKind::kAttribute:
    case ExprKind::kItem: return eval_item(e);
    case ExprKind::kSlice: return eval_slice(e);
    case ExprKind::kCall: return eval_call(e);
    case ExprKind::kFilter: return eval_filter(e);
    case ExprKind::kTest: return eval_test(e);
    case ExprKind::kNegate:
    case ExprKind::kPlus:
    case ExprKind::kNot: return eval_unary(e);
    case ExprKind::kArithmetic: return eval_arithmetic(e);
    case ExprKind::kConcat: return eval_concat(e);
    case ExprKind::kCompare: return eval_compare(e);
    case ExprKind::kAnd:
    case ExprKind::kOr: return eval_logic(e);
    case ExprKind::kConditional: return eval_conditional(e);
  }
  return run_.error("unknown expression");
}

Result<std::vector<Value>> Evaluator::eval_all(const Expr& e, size_t first) {
  std::vector<Value> values;
  values.reserve(e.args.size() - first);
  for (size_t i = first; i < e.args.size(); ++i) {
    BN_ASSIGN_OR_RETURN(Value value, eval(*e.args[i]));
    values.push_back(std::move(value));
  }
  return values;
}

Result<Arguments> Evaluator::eval_arguments(const Expr& e) {
  Arguments arguments;
  BN_ASSIGN_OR_RETURN(arguments.positional, eval_all(e, 1));
  for (const auto& [name, arg] : e.named) {
    BN_ASSIGN_OR_RETURN(Value value, eval(*arg));
    arguments.named.emplace_back(name, std::move(value));
  }
  run_.line = e.line;
  return arguments;
}

Result<Value> Evaluator::eval_dict(const Expr& e) {
  BN_ASSIGN_OR_RETURN(std::vector<Value> values, eval_all(e, 0));
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i < values.size(); i += 2) items.emplace_back(std::move(values[i]), std::move(values[i + 1]));
  run_.line = e.line;
  return run_.dict(std::move(items));
}

Result<Value> Evaluator::eval_item(const Expr& e) {
  BN_ASSIGN_OR_RETURN(const Value object, eval(*e.args[0]));
  if (e.kind == ExprKind::kAttribute) {
    run_.line = e.line;
    return get_attribute(run_, object, e.name);
  }
  BN_ASSIGN_OR_RETURN(const Value key, eval(*e.args[1]));
  run_.line = e.line;
  return get_item(run_, object, key);
}

Result<Value> Evaluator::eval_slice(const Expr& e) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i) {
    parts[i] = Value::none();
    if (!e.args[i]) continue;
    BN_ASSIGN_OR_RETURN(parts[i], eval(*e.args[i]));
  }
  run_.line = e.line;
  return get_slice(run_, parts[0], parts[1], parts[2], parts[3]);
}

Result<Value> Evaluator::eval_call(const Expr& e) {
  const Expr& callee = *e.args[0];
  if (callee.kind != ExprKind::kAttribute) {
    BN_ASSIGN_OR_RETURN(const Value function, eval(callee));
    BN_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e));
    return call(function, arguments);
  }
  BN_ASSIGN_OR_RETURN(const Value object, eval(*callee.args[0]));
  BN_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e));
  BN_ASSIGN_OR_RETURN(std::optional<Value> result, call_method(run_, object, callee.name, arguments));
  if (result) return std::move(*result);
  BN_ASSIGN_OR_RETURN(const Value function, get_attribute(run_, object, callee.name));
  return call(function, arguments);
}

Result<Value> Evaluator::call(const Value& callee, const Arguments& arguments) {
  if (const Macro* macro = callee.if_macro()) return call_macro(*macro, arguments);
  if (const Builtin* builtin = callee.if_builtin()) return builtin->call(run_, arguments);
  if (const Undefined* undefined = callee.if_undefined()) return run_.error("{} is undefined", undefined->what);
  return run_.error("a {} cannot be called", callee.type_name());
}

// The macro sees its parameters and the outermost names.
Result<Value> Evaluator::call_macro(const Macro& macro, const Arguments& arguments) {
  if (macro_depth_ >= kMaxMacroDepth) return run_.error("more than {} macro calls within each other", kMaxMacroDepth);
  const size_t n = macro.parameters.size();
  if (arguments.positional.size() > n) return run_.error("the macro '{}' takes {} arguments", macro.name, n);
  BN_RETURN_IF_ERROR(run_.charge(arguments.named.size() * n));
  std::vector<std::optional<Value>> values(arguments.positional.begin(), arguments.positional.end());
  values.resize(n);
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(macro.parameters.begin(), macro.parameters.end(), name);
    if (found == macro.parameters.end()) return run_.error("the macro '{}' has no parameter '{}'", macro.name, name);
    values[size_t(found - macro.parameters.begin())] = value;
  }
  Text out;
  const size_t outer_frame = std::exchange(frame_, scopes_.size());
  Text* const outer_out = std::exchange(out_, &out);
  scopes_.emplace_back();
  ++macro_depth_;
  const size_t first_default = n - macro.defaults.size();
  for (size_t i = 0; i < n; ++i) {
    if (!values[i] && i >= first_default) {
      BN_ASSIGN_OR_RETURN(values[i], eval(*macro.defaults[i - first_default]));
    }
    define(macro.parameters[i], values[i] ? *values[i] : Value::undefined("parameter '" + macro.parameters[i] + "'"));
  }
  BN_RETURN_IF_ERROR(execute(macro.body));
  --macro_depth_;
  scopes_.pop_back();
  out_ = outer_out;
  frame_ = outer_frame;
  return Value::text(std::move(out));
}

Result<Value> Evaluator::eval_filter(const Expr& e) {
  Value input = block_text_;
  if (e.args[0]) {
    BN_ASSIGN_OR_RETURN(input, eval(*e.args[0]));
  }
  BN_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e));
  return e.filter->apply(run_, input, arguments);
}

Result<Value> Evaluator::eval_test(const Expr& e) {
  BN_ASSIGN_OR_RETURN(const Value input, eval(*e.args[0]));
  BN_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(e));
  BN_ASSIGN_OR_RETURN(const bool passes, e.test->apply(run_, input, arguments));
  return Value::boolean(passes);
}

Result<Value> Evaluator::eval_unary(const Expr& e) {
  BN_ASSIGN_OR_RETURN(const Value value, eval(*e.args[0]));
  if (e.kind == ExprKind::kNot) return Value::boolean(!value.truthy());
  run_.line = e.line;
  const Value zero = value.is<double>() ? Value::number(-0.0) : Value::integer(0);
  return arithmetic(run_, e.kind == ExprKind::kNegate ? Op::kSub : Op::kAdd, zero, value);
}

Result<Value> Evaluator::eval_arithmetic(const Expr& e) {
  BN_ASSIGN_OR_RETURN(const Value a, eval(*e.args[0]));
  BN_ASSIGN_OR_RETURN(const Value b, eval(*e.args[1]));
  run_.line = e.line;
  return arithmetic(run_, e.ops[0], a, b);
}

Result<Value> Evaluator::eval_concat(const Expr& e) {
  Text out;
  for (const ExprPtr& arg : e.args) {
    BN_ASSIGN_OR_RETURN(const Value value, eval(*arg));
    BN_RETURN_IF_ERROR(append_str(run_, out, value));
  }
  return Value::text(std::move(out));
}

Result<Value> Evaluator::eval_compare(const Expr& e) {
  BN_ASSIGN_OR_RETURN(Value left, eval(*e.args[0]));
  for (size_t i = 0; i < e.ops.size(); ++i) {
    BN_ASSIGN_OR_RETURN(Value right, eval(*e.args[i + 1]));
    run_.line = e.line;
    BN_ASSIGN_OR_RETURN(const bool holds, compare_with(run_, e.ops[i], left, right));
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

// The first operand that decides, or the last one.
Result<Value> Evaluator::eval_logic(const Expr& e) {
  Value value;
  for (const ExprPtr& arg : e.args) {
    BN_ASSIGN_OR_RETURN(value, eval(*arg));
    if (value.truthy() == (e.kind == ExprKind::kOr)) break;
  }
  return value;
}

Result<Value> Evaluator::eval_conditional(const Expr& e) {
  BN_ASSIGN_OR_RETURN(const Value condition, eval(*e.args[1]));
  if (condition.truthy()) return eval(*e.args[0]);
  if (e.args[2]) return eval(*e.args[2]);
  return Value::undefined("the value of an 'if' without 'else'");
}

}  // namespace bitnet::jinja
