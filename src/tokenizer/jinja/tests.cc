// Tests: what may stand behind `is`.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>
#include <cmath>

namespace bitnet::jinja {

namespace {

// A test without arguments.
template <bool (*kHolds)(const Value&)>
Result<bool> simple(Run& run, const Value& value, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "test", arguments, {}, 0));
  return kHolds(value);
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is<bool>(); }
bool is_true(const Value& v) { return v.is<bool>() && v.truthy(); }
bool is_false(const Value& v) { return v.is<bool>() && !v.truthy(); }
bool is_integer(const Value& v) { return v.is<int64_t>(); }
bool is_float(const Value& v) { return v.is<double>(); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.if_text() != nullptr; }
bool is_mapping(const Value& v) { return v.if_dict() != nullptr; }
bool is_sequence(const Value& v) { return v.if_text() || v.if_list() || v.if_dict(); }
bool is_iterable(const Value& v) { return is_sequence(v) || v.is_undefined() || v.if_loop(); }
bool is_callable(const Value& v) { return v.if_macro() || v.if_builtin(); }

template <bool (*kIsCase)(char), bool (*kIsOther)(char)>
Result<bool> has_case(Run& run, const Value& value, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "test", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Text text, to_text(run, value));
  const std::string& s = text.bytes();
  return std::any_of(s.begin(), s.end(), kIsCase) && std::none_of(s.begin(), s.end(), kIsOther);
}

Result<bool> divisible(Run& run, const Value& value, const Value& by) {
  BN_ASSIGN_OR_RETURN(const Value rest, arithmetic(run, Op::kMod, value, by));
  if (!rest.is_number()) return run.error("a {} is not divisible", value.type_name());
  return rest.as_double() == 0.0;
}

Result<bool> test_divisibleby(Run& run, const Value& value, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "divisibleby", arguments, {"num"}, 1));
  return divisible(run, value, bound[0]);
}
Result<bool> test_even(Run& run, const Value& value, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "even", arguments, {}, 0));
  return divisible(run, value, Value::integer(2));
}
Result<bool> test_odd(Run& run, const Value& value, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "odd", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Value rest, arithmetic(run, Op::kMod, value, Value::integer(2)));
  return rest.is_number() && rest.as_double() == 1.0;
}

Result<bool> test_sameas(Run& run, const Value& value, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "sameas", arguments, {"other"}, 1));
  if (std::string_view(value.type_name()) != bound[0].type_name()) return false;
  return equals(run, value, bound[0]);
}

template <Op kOp>
Result<bool> compares(Run& run, const Value& value, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "test", arguments, {"other"}, 1));
  return compare_with(run, kOp, value, bound[0]);
}

constexpr Test kTests[] = {
    {"!=", compares<Op::kNe>},
    {"<", compares<Op::kLt>},
    {"<=", compares<Op::kLe>},
    {"==", compares<Op::kEq>},
    {">", compares<Op::kGt>},
    {">=", compares<Op::kGe>},
    {"boolean", simple<is_boolean>},
    {"callable", simple<is_callable>},
    {"defined", simple<is_defined>},
    {"divisibleby", test_divisibleby},
    {"eq", compares<Op::kEq>},
    {"equalto", compares<Op::kEq>},
    {"even", test_even},
    {"false", simple<is_false>},
    {"float", simple<is_float>},
    {"ge", compares<Op::kGe>},
    {"greaterthan", compares<Op::kGt>},
    {"gt", compares<Op::kGt>},
    {"in", compares<Op::kIn>},
    {"integer", simple<is_integer>},
    {"iterable", simple<is_iterable>},
    {"le", compares<Op::kLe>},
    {"lessthan", compares<Op::kLt>},
    {"lower", has_case<is_lower, is_upper>},
    {"lt", compares<Op::kLt>},
    {"mapping", simple<is_mapping>},
    {"ne", compares<Op::kNe>},
    {"none", simple<is_none>},
    {"number", simple<is_number>},
    {"odd", test_odd},
    {"sameas", test_sameas},
    {"sequence", simple<is_sequence>},
    {"string", simple<is_string>},
    {"true", simple<is_true>},
    {"undefined", simple<is_undefined>},
    {"upper", has_case<is_upper, is_lower>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTests), std::end(kTests), [name](const Test& t) { return t.name == name; });
  return found != std::end(kTests) ? found : nullptr;
}

}  // namespace bitnet::jinja
