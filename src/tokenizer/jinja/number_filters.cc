// Filters that make numbers.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace bitnet::jinja {

namespace {

// False: `s` is no whole number, or does not fit.
bool parse_int(std::string_view s, int base, int64_t* out) {
  const auto range = strip_range(s, true, true);
  s = s.substr(range.first, range.second - range.first);
  if (s.size() > 1 && s[0] == '+' && s[1] != '-') s.remove_prefix(1);
  const auto parsed = std::from_chars(s.data(), s.data() + s.size(), *out, base);
  return parsed.ec == std::errc() && parsed.ptr == s.data() + s.size();
}

bool parse_float(std::string_view s, double* out) {
  const auto range = strip_range(s, true, true);
  return parse_double(std::string(s.substr(range.first, range.second - range.first)), out);
}

bool fits_int(double d) { return d > -9.2e18 && d < 9.2e18; }

Result<Value> filter_int(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "int", arguments, {"default", "base"}, 0));
  BN_ASSIGN_OR_RETURN(const int64_t base, int_argument(run, "int", bound.get(1, Value::integer(10))));
  if (base < 2 || base > 36) return run.error("int() has no base {}", base);
  if (const Undefined* undefined = input.if_undefined()) return run.error("{} is undefined", undefined->what);
  if (input.is_integral()) return Value::integer(input.as_int());
  int64_t whole = 0;
  double number = 0;
  const Text* text = input.if_text();
  if (text) BN_RETURN_IF_ERROR(run.charge_bytes(8 * text->size()));
  if (text && parse_int(text->bytes(), int(base), &whole)) return Value::integer(whole);
  if (text && parse_float(text->bytes(), &number) && fits_int(number)) return Value::integer(int64_t(number));
  if (const double* d = input.if_double(); d && fits_int(*d)) return Value::integer(int64_t(*d));
  return bound.get(0, Value::integer(0));
}

Result<Value> filter_float(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "float", arguments, {"default"}, 0));
  if (const Undefined* undefined = input.if_undefined()) return run.error("{} is undefined", undefined->what);
  if (input.is_number()) return Value::number(input.as_double());
  double number = 0;
  const Text* text = input.if_text();
  if (text) BN_RETURN_IF_ERROR(run.charge_bytes(8 * text->size()));
  if (text && parse_float(text->bytes(), &number)) return Value::number(number);
  return bound.get(0, Value::number(0.0));
}

Result<Value> filter_abs(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "abs", arguments, {}, 0));
  if (!input.is_number()) return run.error("'abs' needs a number, not a {}", input.type_name());
  if (!input.is_integral()) return Value::number(std::fabs(input.as_double()));
  if (input.as_int() == INT64_MIN) return run.error("the number does not fit 64 bits");
  return Value::integer(input.as_int() < 0 ? -input.as_int() : input.as_int());
}

Result<Value> filter_round(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "round", arguments, {"precision", "method"}, 0));
  if (!input.is_number()) return run.error("'round' needs a number, not a {}", input.type_name());
  BN_ASSIGN_OR_RETURN(const int64_t digits, int_argument(run, "round", bound.get(0, Value::integer(0))));
  BN_ASSIGN_OR_RETURN(const Text method, to_text(run, bound.get(1, Value::text("common"))));
  const double scale = std::pow(10.0, double(std::clamp<int64_t>(digits, -300, 300)));
  const double scaled = input.as_double() * scale;
  if (method.bytes() == "ceil") return Value::number(std::ceil(scaled) / scale);
  if (method.bytes() == "floor") return Value::number(std::floor(scaled) / scale);
  if (method.bytes() != "common") return run.error("'round' has no method '{}'", method.bytes().substr(0, 80));
  if (input.is_integral() && digits >= 0) return Value::integer(input.as_int());
  // Python rounds halves to the even neighbour.
  const double rounded = std::isfinite(scaled) ? (scaled - std::remainder(scaled, 1.0)) / scale : input.as_double();
  return input.is_integral() && fits_int(rounded) ? Value::integer(int64_t(rounded)) : Value::number(rounded);
}

}  // namespace

const std::vector<Filter>& number_filters() {
  static const std::vector<Filter> kFilters = {
      {"abs", filter_abs}, {"float", filter_float}, {"int", filter_int}, {"round", filter_round}};
  return kFilters;
}

}  // namespace bitnet::jinja
