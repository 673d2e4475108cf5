#include "tokenizer/jinja/value.h"

#include <algorithm>
#include <cmath>

namespace bitnet::jinja {

bool Value::truthy() const {
  if (const bool* b = if_bool()) return *b;
  if (is_number()) return as_double() != 0.0;
  if (const Text* text = if_text()) return !text->empty();
  if (const List* list = if_list()) return !list->items.empty();
  if (const Dict* dict = if_dict()) return !dict->items.empty();
  return !is_undefined() && !is_none();
}

const char* Value::type_name() const {
  static constexpr const char* kNames[] = {"undefined", "NoneType", "bool",      "int",         "float", "str",
                                           "list",      "dict",     "namespace", "LoopContext", "macro", "function"};
  const List* list = if_list();
  return list && list->is_tuple ? "tuple" : kNames[v_.index()];
}

int Value::depth() const {
  if (const List* list = if_list()) return list->depth;
  if (const Dict* dict = if_dict()) return dict->depth;
  if (const Loop* loop = if_loop()) return loop->items->depth + 1;
  return if_namespace() ? kMaxNamespaceDepth + 1 : 0;
}

bool Value::holds_mutable() const {
  if (const List* list = if_list()) return list->holds_mutable;
  if (const Dict* dict = if_dict()) return dict->holds_mutable;
  return if_namespace() || if_loop();
}

Status Run::charge(uint64_t steps) {
  if (steps > steps_left_) {
    steps_left_ = 0;
    return error("took more than {} steps", kMaxSteps);
  }
  steps_left_ -= steps;
  return ok();
}

Status Run::charge_bytes(uint64_t bytes) {
  unpaid_bytes_ += bytes;
  const uint64_t steps = unpaid_bytes_ / 128;
  unpaid_bytes_ %= 128;
  return charge(steps);
}

Error Run::fail(const std::string& message) const {
  return invalid_input("the chat template of {}, line {}: {}", name_, line, message);
}

Status Run::append(Text& out, const Text& piece, size_t begin, size_t end) {
  if (out.size() + (end - begin) > kMaxTextBytes) return error("made a text of more than {} bytes", kMaxTextBytes);
  const size_t before = out.cost_bytes();
  out.append(piece, begin, end);
  return charge_bytes(out.cost_bytes() - before);
}

Status Run::append(Text& out, std::string_view bytes, Origin origin) {
  if (out.size() + bytes.size() > kMaxTextBytes) return error("made a text of more than {} bytes", kMaxTextBytes);
  out.append(bytes, origin);
  return charge_bytes(bytes.size());
}

Result<Value> Run::list(std::vector<Value> items, bool is_tuple) {
  BN_RETURN_IF_ERROR(charge(items.size() / 2));
  List list;
  for (const Value& item : items) {
    list.depth = std::max(list.depth, item.depth() + 1);
    list.holds_mutable = list.holds_mutable || item.holds_mutable();
  }
  if (list.depth > kMaxValueDepth) return error("nested lists more than {} deep", kMaxValueDepth);
  list.items = std::move(items);
  list.is_tuple = is_tuple;
  return Value::of(std::make_shared<const List>(std::move(list)));
}

Result<Value> Run::dict(std::vector<std::pair<Value, Value>> items) {
  Dict dict;
  for (auto& [key, value] : items) {
    if (key.if_list() || key.if_dict() || key.is_undefined()) return error("a {} cannot be a key", key.type_name());
    dict.depth = std::max(dict.depth, value.depth() + 1);
    dict.holds_mutable = dict.holds_mutable || key.holds_mutable() || value.holds_mutable();
    BN_ASSIGN_OR_RETURN(const Value* existing, find_key(*this, dict, key));
    if (existing) {
      *const_cast<Value*>(existing) = std::move(value);
    } else {
      dict.items.emplace_back(std::move(key), std::move(value));
    }
  }
  if (dict.depth > kMaxValueDepth) return error("nested dicts more than {} deep", kMaxValueDepth);
  return Value::of(std::make_shared<const Dict>(std::move(dict)));
}

namespace {

int sign(bool less, bool greater) { return greater - less; }

// True, with `result` set, where both are numbers.
bool compare_numbers(const Value& a, const Value& b, int* result, bool* unordered) {
  if (!a.is_number() || !b.is_number()) return false;
  *unordered = false;
  if (a.is_integral() && b.is_integral()) {
    *result = sign(a.as_int() < b.as_int(), a.as_int() > b.as_int());
  } else {
    *result = sign(a.as_double() < b.as_double(), a.as_double() > b.as_double());
    *unordered = std::isnan(a.as_double()) || std::isnan(b.as_double());
  }
  return true;
}

Result<bool> equal_lists(Run& run, const List& a, const List& b) {
  if (a.items.size() != b.items.size() || a.is_tuple != b.is_tuple) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, a.items[i], b.items[i]));
    if (!same) return false;
  }
  return true;
}

Result<bool> equal_dicts(Run& run, const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    BN_ASSIGN_OR_RETURN(const Value* other, find_key(run, b, key));
    if (!other) return false;
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, value, *other));
    if (!same) return false;
  }
  return true;
}

}  // namespace

Result<bool> equals(Run& run, const Value& a, const Value& b) {
  BN_RETURN_IF_ERROR(run.charge(1));
  int order = 0;
  bool unordered = false;
  if (compare_numbers(a, b, &order, &unordered)) return order == 0 && !unordered;
  if (a.if_text() && b.if_text()) {
    if (a.if_text()->size() != b.if_text()->size()) return false;
    BN_RETURN_IF_ERROR(run.charge_bytes(a.if_text()->size()));
    return a.if_text()->bytes() == b.if_text()->bytes();
  }
  if (a.if_list() && b.if_list()) return equal_lists(run, *a.if_list(), *b.if_list());
  if (a.if_dict() && b.if_dict()) return equal_dicts(run, *a.if_dict(), *b.if_dict());
  if (a.if_namespace() || a.if_loop()) return a.if_namespace() == b.if_namespace() && a.if_loop() == b.if_loop();
  if (a.if_macro() || a.if_builtin()) return a.if_macro() == b.if_macro() && a.if_builtin() == b.if_builtin();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

Result<int> compare(Run& run, const Value& a, const Value& b, bool* unordered) {
  BN_RETURN_IF_ERROR(run.charge(1));
  int order = 0;
  *unordered = false;
  if (compare_numbers(a, b, &order, unordered)) return order;
  if (a.if_text() && b.if_text()) {
    BN_RETURN_IF_ERROR(run.charge_bytes(std::min(a.if_text()->size(), b.if_text()->size())));
    const int c = a.if_text()->bytes().compare(b.if_text()->bytes());
    return sign(c<0, c> 0);
  }
  const List* x = a.if_list();
  const List* y = b.if_list();
  if (!x || !y || x->is_tuple != y->is_tuple) {
    return run.error("a {} and a {} have no order", a.type_name(), b.type_name());
  }
  const size_t n = std::min(x->items.size(), y->items.size());
  for (size_t i = 0; i < n; ++i) {
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, x->items[i], y->items[i]));
    if (!same) return compare(run, x->items[i], y->items[i], unordered);
  }
  return sign(x->items.size() < y->items.size(), x->items.size() > y->items.size());
}

Result<const Value*> find_key(Run& run, const Dict& dict, const Value& key) {
  for (const auto& [k, value] : dict.items) {
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, k, key));
    if (same) return &value;
  }
  return static_cast<const Value*>(nullptr);
}

Result<bool> contains(Run& run, const Value& container, const Value& item) {
  if (const Text* text = container.if_text()) {
    if (!item.if_text()) return run.error("'in' needs a str to look for in a str, not a {}", item.type_name());
    BN_RETURN_IF_ERROR(run.charge_bytes(text->size()));
    return find_text(text->bytes(), item.if_text()->bytes(), 0) != std::string::npos;
  }
  if (const Dict* dict = container.if_dict()) {
    BN_ASSIGN_OR_RETURN(const Value* found, find_key(run, *dict, item));
    return found != nullptr;
  }
  BN_ASSIGN_OR_RETURN(const auto items, iterate(run, container));
  for (const Value& candidate : items->items) {
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, candidate, item));
    if (same) return true;
  }
  return false;
}

Result<std::shared_ptr<const List>> iterate(Run& run, const Value& value) {
  if (auto list = value.list_pointer()) return list;
  auto items = std::make_shared<List>();
  if (const Text* text = value.if_text()) {
    BN_RETURN_IF_ERROR(run.charge(2 * count_chars(text->bytes())));
    const std::vector<uint32_t> offsets = char_offsets(text->bytes());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      items->items.push_back(Value::text(text->substr(offsets[i], offsets[i + 1])));
    }
  } else if (const Dict* dict = value.if_dict()) {
    BN_RETURN_IF_ERROR(run.charge(dict->items.size() / 4));
    for (const auto& item : dict->items) items->items.push_back(item.first);
  } else if (!value.is_undefined()) {
    return run.error("a {} cannot be walked through", value.type_name());
  }
  return std::shared_ptr<const List>(std::move(items));
}

}  // namespace bitnet::jinja
