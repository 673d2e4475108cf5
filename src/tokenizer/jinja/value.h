#pragma once

#include "base/result.h"
#include "tokenizer/jinja/text.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace bitnet::jinja {

class Value;
struct Macro;
struct Builtin;

inline constexpr size_t kMaxTextBytes = size_t{4} << 20;
inline constexpr uint64_t kMaxSteps = 1'000'000;
// Lists in lists: bounds every recursion over a value.
inline constexpr int kMaxValueDepth = 64;
inline constexpr int kMaxNamespaceDepth = 32;  // of what a namespace holds

// What a name, an attribute or an item that does not exist gives; `what` tells it in an error.
struct Undefined {
  std::string what;
};
struct None {};

// Lists, tuples and dicts never change once made, so a value can only ever hold older ones: no cycles.
struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
  bool holds_mutable = false;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in the order of insertion
  int depth = 1;
  bool holds_mutable = false;
};
// The one thing that changes. It cannot hold another one, which keeps cycles out.
struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
};

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                               std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                               std::shared_ptr<const Loop>, const Macro*, const Builtin*>;

  Value() = default;  // undefined
  static Value none() { return Value(Variant(None{})); }
  static Value undefined(std::string what) { return Value(Variant(Undefined{std::move(what)})); }
  static Value boolean(bool b) { return Value(Variant(b)); }
  static Value integer(int64_t i) { return Value(Variant(i)); }
  static Value number(double d) { return Value(Variant(d)); }
  static Value text(Text t) { return Value(Variant(std::make_shared<const Text>(std::move(t)))); }
  static Value text(std::string_view s) { return text(Text(s)); }
  template <class T>
  static Value of(T pointer) {
    return Value(Variant(std::move(pointer)));
  }

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(v_);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_none() const { return is<None>(); }
  const Undefined* if_undefined() const { return std::get_if<Undefined>(&v_); }
  const bool* if_bool() const { return std::get_if<bool>(&v_); }
  const double* if_double() const { return std::get_if<double>(&v_); }
  // Null unless the value is of the kind. Python's bool counts as an int.
  const Text* if_text() const { return pointee<const Text>(); }
  const List* if_list() const { return pointee<const List>(); }
  const Dict* if_dict() const { return pointee<const Dict>(); }
  const Loop* if_loop() const { return pointee<const Loop>(); }
  Namespace* if_namespace() const { return pointee<Namespace>(); }
  std::shared_ptr<const List> list_pointer() const {
    const auto* p = std::get_if<std::shared_ptr<const List>>(&v_);
    return p ? *p : nullptr;
  }
  const Macro* if_macro() const { return is<const Macro*>() ? std::get<const Macro*>(v_) : nullptr; }
  const Builtin* if_builtin() const { return is<const Builtin*>() ? std::get<const Builtin*>(v_) : nullptr; }

  bool is_integral() const { return is<int64_t>() || is<bool>(); }
  bool is_number() const { return is_integral() || is<double>(); }
  int64_t as_int() const { return is<bool>() ? std::get<bool>(v_) : std::get<int64_t>(v_); }
  double as_double() const { return is<double>() ? std::get<double>(v_) : static_cast<double>(as_int()); }

  bool truthy() const;
  // Python's name of the type: "str", "int", "list", "NoneType".
  const char* type_name() const;
  // Containers below this one, itself included.
  int depth() const;
  bool holds_mutable() const;

 private:
  explicit Value(Variant v) : v_(std::move(v)) {}
  template <class T>
  T* pointee() const {
    const auto* p = std::get_if<std::shared_ptr<T>>(&v_);
    return p ? p->get() : nullptr;
  }
  Variant v_;
};

// One rendering: its budget and the line it is at. Everything that loops pays a step per turn, everything that copies
// or scans text one per 128 bytes, so that the budget bounds time and memory together.
class Run {
 public:
  explicit Run(const std::string& template_name) : name_(template_name) {}

  Status charge(uint64_t steps);
  Status charge_bytes(uint64_t bytes);
  template <class... Args>
  Error error(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(fmt::format(format, std::forward<Args>(args)...));
  }
  Error fail(const std::string& message) const;

  // Appends and keeps the text within kMaxTextBytes.
  Status append(Text& out, const Text& piece, size_t begin, size_t end);
  Status append(Text& out, const Text& piece) { return append(out, piece, 0, piece.size()); }
  Status append(Text& out, std::string_view bytes, Origin origin = kTemplateOrigin);

  Result<Value> list(std::vector<Value> items, bool is_tuple = false);
  Result<Value> dict(std::vector<std::pair<Value, Value>> items);  // a later key replaces an equal earlier one

  int line = 1;

 private:
  const std::string& name_;
  uint64_t steps_left_ = kMaxSteps;
  uint64_t unpaid_bytes_ = 0;
};

// Python's ==. The budget pays for what it compares.
Result<bool> equals(Run& run, const Value& a, const Value& b);
// -1, 0 or 1 by Python's <; an error for values without an order. NaN is unordered: `unordered` is set.
Result<int> compare(Run& run, const Value& a, const Value& b, bool* unordered);
Result<bool> contains(Run& run, const Value& container, const Value& item);
// Null: no such key.
Result<const Value*> find_key(Run& run, const Dict& dict, const Value& key);

// Appends Python's str() and repr().
Status append_str(Run& run, Text& out, const Value& value);
Status append_repr(Run& run, Text& out, const Value& value);
Result<Text> to_text(Run& run, const Value& value);
std::string float_repr(double d);

// Appends json.dumps(value, ensure_ascii=False), on one line where indent < 0.
Status append_json(Run& run, Text& out, const Value& value, int indent, bool sort_keys);

// What `for` and list() walk through: items, keys, characters; nothing for undefined.
Result<std::shared_ptr<const List>> iterate(Run& run, const Value& value);

}  // namespace bitnet::jinja
