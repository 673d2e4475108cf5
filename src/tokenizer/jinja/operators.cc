// Python's arithmetic and comparisons. Whole numbers have 64 bits; what does not fit is an error.

#include "tokenizer/jinja/evaluator.h"

#include <cmath>

namespace bitnet::jinja {

namespace {

const char* symbol(Op op) {
  static constexpr const char* kSymbols[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[size_t(op)];
}

// False: does not fit 64 bits.
bool int_power(int64_t base, int64_t exponent, int64_t* out) {
  *out = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(*out, base, out)) return false;
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return false;
  }
  return true;
}

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

Result<Value> int_arithmetic(Run& run, Op op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool fits = true;
  const bool divides = op == Op::kFloorDiv || op == Op::kMod;
  if (divides && b == 0) return run.error("division by zero");
  if (op == Op::kAdd) fits = !__builtin_add_overflow(a, b, &out);
  if (op == Op::kSub) fits = !__builtin_sub_overflow(a, b, &out);
  if (op == Op::kMul) fits = !__builtin_mul_overflow(a, b, &out);
  if (op == Op::kPow) fits = int_power(a, b, &out);
  if (divides && b == -1) {
    fits = op == Op::kMod || !__builtin_sub_overflow(int64_t{0}, a, &out);
  } else if (divides) {
    out = op == Op::kFloorDiv ? floor_div(a, b) : a - floor_div(a, b) * b;
  }
  if (!fits) return run.error("{} {} {} does not fit 64 bits", a, symbol(op), b);
  return Value::integer(out);
}

Result<Value> float_arithmetic(Run& run, Op op, double a, double b) {
  switch (op) {
    case Op::kAdd: return Value::number(a + b);
    case Op::kSub: return Value::number(a - b);
    case Op::kMul: return Value::number(a * b);
    case Op::kPow:
      if (a == 0.0 && b < 0.0) return run.error("division by zero");
      if (a < 0.0 && b != std::floor(b)) return run.error("a power of a negative number has no real value");
      return Value::number(std::pow(a, b));
    default: break;
  }
  if (b == 0.0) return run.error("division by zero");
  if (op == Op::kDiv) return Value::number(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0.0 && (rest < 0.0) != (b < 0.0)) rest += b;
  return Value::number(op == Op::kMod ? rest : std::round((a - rest) / b));
}

Result<Value> repeat(Run& run, const Value& value, int64_t count) {
  const auto n = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  if (const Text* text = value.if_text()) {
    BN_RETURN_IF_ERROR(run.charge(text->empty() ? 0 : n / 16));
    Text out;
    for (uint64_t i = 0; i < n && !text->empty(); ++i) BN_RETURN_IF_ERROR(run.append(out, *text));
    return Value::text(std::move(out));
  }
  const List& list = *value.if_list();
  if (list.items.empty()) return value;
  if (n > kMaxSteps) return run.error("repeated a list {} times", n);
  BN_RETURN_IF_ERROR(run.charge(n * list.items.size()));
  std::vector<Value> items;
  for (uint64_t i = 0; i < n; ++i) items.insert(items.end(), list.items.begin(), list.items.end());
  return run.list(std::move(items), list.is_tuple);
}

}  // namespace

Result<Value> arithmetic(Run& run, Op op, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (const Undefined* undefined = value->if_undefined()) return run.error("{} is undefined", undefined->what);
  }
  if (a.is_number() && b.is_number()) {
    const bool whole = a.is_integral() && b.is_integral() && op != Op::kDiv && !(op == Op::kPow && b.as_int() < 0);
    return whole ? int_arithmetic(run, op, a.as_int(), b.as_int())
                 : float_arithmetic(run, op, a.as_double(), b.as_double());
  }
  if (op == Op::kAdd && a.if_text() && b.if_text()) {
    Text out;
    BN_RETURN_IF_ERROR(run.append(out, *a.if_text()));
    BN_RETURN_IF_ERROR(run.append(out, *b.if_text()));
    return Value::text(std::move(out));
  }
  if (op == Op::kAdd && a.if_list() && b.if_list() && a.if_list()->is_tuple == b.if_list()->is_tuple) {
    BN_RETURN_IF_ERROR(run.charge((a.if_list()->items.size() + b.if_list()->items.size()) / 2));
    std::vector<Value> items = a.if_list()->items;
    items.insert(items.end(), b.if_list()->items.begin(), b.if_list()->items.end());
    return run.list(std::move(items), a.if_list()->is_tuple);
  }
  if (op == Op::kMul && (a.if_text() || a.if_list()) && b.is_integral()) return repeat(run, a, b.as_int());
  if (op == Op::kMul && (b.if_text() || b.if_list()) && a.is_integral()) return repeat(run, b, a.as_int());
  return run.error("a {} {} a {} is not possible", a.type_name(), symbol(op), b.type_name());
}

Result<bool> compare_with(Run& run, Op op, const Value& a, const Value& b) {
  if (op == Op::kEq || op == Op::kNe) {
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, a, b));
    return same == (op == Op::kEq);
  }
  if (op == Op::kIn || op == Op::kNotIn) {
    BN_ASSIGN_OR_RETURN(const bool found, contains(run, b, a));
    return found == (op == Op::kIn);
  }
  for (const Value* value : {&a, &b}) {
    if (const Undefined* undefined = value->if_undefined()) return run.error("{} is undefined", undefined->what);
  }
  bool unordered = false;
  BN_ASSIGN_OR_RETURN(const int order, compare(run, a, b, &unordered));
  if (unordered) return false;
  return op == Op::kLt ? order < 0 : op == Op::kLe ? order <= 0 : op == Op::kGt ? order > 0 : order >= 0;
}

}  // namespace bitnet::jinja
