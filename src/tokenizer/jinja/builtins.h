#pragma once

#include "tokenizer/jinja/value.h"

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet::jinja {

// The arguments of one call, in order.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments by the place of their parameter.
class Bound {
 public:
  bool has(size_t i) const { return values_[i].has_value(); }
  const Value& operator[](size_t i) const { return *values_[i]; }
  Value get(size_t i, Value otherwise) const { return has(i) ? *values_[i] : std::move(otherwise); }
  bool truthy(size_t i) const { return has(i) && values_[i]->truthy(); }

 private:
  friend Result<Bound> bind(Run&, std::string_view, const Arguments&, std::initializer_list<std::string_view>, size_t);
  std::vector<std::optional<Value>> values_;
};

// Refuses too many, unknown and doubled arguments, and fewer than the first `n_required`.
Result<Bound> bind(Run& run, std::string_view callee, const Arguments& arguments,
                   std::initializer_list<std::string_view> parameters, size_t n_required);
Result<int64_t> int_argument(Run& run, std::string_view callee, const Value& value);
Result<const Text*> text_argument(Run& run, std::string_view callee, const Value& value);

struct Filter {
  std::string_view name;
  Result<Value> (*apply)(Run&, const Value&, const Arguments&);
};
struct Test {
  std::string_view name;
  Result<bool> (*apply)(Run&, const Value&, const Arguments&);
};
struct TextMethod {
  std::string_view name;
  Result<Value> (*call)(Run&, const Text&, const Arguments&);
};
struct Builtin {
  std::string_view name;
  Result<Value> (*call)(Run&, const Arguments&);
};

enum class Op : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow, kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };
Result<Value> arithmetic(Run& run, Op op, const Value& a, const Value& b);
Result<bool> compare_with(Run& run, Op op, const Value& a, const Value& b);

// Null: there is none of this name.
const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);
const TextMethod* find_text_method(std::string_view name);
const Builtin* find_builtin(std::string_view name);

// object.name and object[key] as Jinja has them; undefined where there is none, an error on undefined.
Result<Value> get_attribute(Run& run, const Value& object, const std::string& name);
Result<Value> get_item(Run& run, const Value& object, const Value& key);
// `start`, `stop` and `step` may be none.
Result<Value> get_slice(Run& run, const Value& object, const Value& start, const Value& stop, const Value& step);

// Refuses values that are or hold a namespace, and deeply nested ones.
Status set_attribute(Run& run, Namespace& ns, const std::string& name, Value value);

// object.name(arguments) for the methods of str, dict, list and loop. Nothing: the object has no such method.
Result<std::optional<Value>> call_method(Run& run, const Value& object, std::string_view name,
                                         const Arguments& arguments);

// What filters and methods share.
// The value at 'a.b.0', or of a key that is no str.
Result<Value> get_path(Run& run, const Value& object, const Value& path);
Result<Value> dict_items(Run& run, const Dict& dict);
Result<Value> replace_text(Run& run, const Text& text, const Text& from, const Text& to, int64_t max_count);
// Without white space at its ends, or without the characters of the first argument.
Result<Value> strip_text(Run& run, std::string_view callee, const Text& text, const Bound& bound, bool left,
                         bool right);
Result<Value> join_texts(Run& run, const Value& items, const Text& separator);
Text upper(const Text& text);
Text lower(const Text& text);
Text capitalize(const Text& text);

// The tables, one file each.
const std::vector<Filter>& text_filters();
const std::vector<Filter>& number_filters();
const std::vector<Filter>& sequence_filters();
const std::vector<Filter>& ordering_filters();

}  // namespace bitnet::jinja
