// Arguments, attributes and items, and the functions a template can call.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>
#include <ctime>

namespace bitnet::jinja {

Result<Bound> bind(Run& run, std::string_view callee, const Arguments& arguments,
                   std::initializer_list<std::string_view> parameters, size_t n_required) {
  Bound bound;
  const size_t n_given = arguments.positional.size();
  if (n_given > parameters.size())
    return run.error("'{}' takes {} arguments, not {}", callee, parameters.size(), n_given);
  bound.values_.assign(arguments.positional.begin(), arguments.positional.end());
  bound.values_.resize(parameters.size());
  for (const auto& [name, value] : arguments.named) {
    const auto* parameter = std::find(parameters.begin(), parameters.end(), name);
    if (parameter == parameters.end()) return run.error("'{}' has no argument '{}'", callee, name);
    std::optional<Value>& place = bound.values_[size_t(parameter - parameters.begin())];
    if (place) return run.error("'{}' got its argument '{}' twice", callee, name);
    place = value;
  }
  for (size_t i = 0; i < n_required; ++i) {
    if (!bound.has(i)) return run.error("'{}' needs its argument '{}'", callee, parameters.begin()[i]);
  }
  return bound;
}

Result<int64_t> int_argument(Run& run, std::string_view callee, const Value& value) {
  if (!value.is_integral()) return run.error("'{}' needs a whole number, not a {}", callee, value.type_name());
  return value.as_int();
}

Result<const Text*> text_argument(Run& run, std::string_view callee, const Value& value) {
  const Text* text = value.if_text();
  if (!text) return run.error("'{}' needs a str, not a {}", callee, value.type_name());
  return text;
}

namespace {

Value loop_attribute(const Loop& loop, const std::string& name) {
  const std::vector<Value>& items = loop.items->items;
  const auto i = static_cast<int64_t>(loop.index);
  const auto n = static_cast<int64_t>(items.size());
  if (name == "index") return Value::integer(i + 1);
  if (name == "index0") return Value::integer(i);
  if (name == "revindex") return Value::integer(n - i);
  if (name == "revindex0") return Value::integer(n - i - 1);
  if (name == "first") return Value::boolean(i == 0);
  if (name == "last") return Value::boolean(i + 1 == n);
  if (name == "length") return Value::integer(n);
  // Jinja counts recursive loops only.
  if (name == "depth" || name == "depth0") return Value::integer(name == "depth");
  if (name == "previtem") return i > 0 ? items[loop.index - 1] : Value::undefined("loop.previtem of the first item");
  if (name == "nextitem") return i + 1 < n ? items[loop.index + 1] : Value::undefined("loop.nextitem of the last item");
  return Value::undefined("loop." + name);
}

Error undefined_error(Run& run, const Value& value) { return run.error("{} is undefined", value.if_undefined()->what); }

Value missing(const Value& object, const std::string& name) {
  return Value::undefined(fmt::format("'{}' of a {}", name.substr(0, 80), object.type_name()));
}

// Place of a Python index in a sequence of n; nothing where it is outside.
std::optional<size_t> place_of(int64_t index, size_t n) {
  const auto count = static_cast<int64_t>(n);
  if (index < -count || index >= count) return std::nullopt;
  return static_cast<size_t>(index < 0 ? index + count : index);
}

}  // namespace

Result<Value> get_attribute(Run& run, const Value& object, const std::string& name) {
  if (object.is_undefined()) return undefined_error(run, object);
  if (const Loop* loop = object.if_loop()) return loop_attribute(*loop, name);
  if (const Namespace* ns = object.if_namespace()) {
    const auto found = ns->attributes.find(name);
    return found != ns->attributes.end() ? found->second : missing(object, name);
  }
  if (const Dict* dict = object.if_dict()) {
    for (const auto& [key, value] : dict->items) {
      BN_RETURN_IF_ERROR(run.charge(1));
      if (key.if_text() && key.if_text()->bytes() == name) return value;
    }
  }
  return missing(object, name);
}

Result<Value> get_item(Run& run, const Value& object, const Value& key) {
  if (object.is_undefined()) return undefined_error(run, object);
  if (const Dict* dict = object.if_dict()) {
    BN_ASSIGN_OR_RETURN(const Value* found, find_key(run, *dict, key));
    if (found) return *found;
  }
  const Text* text = object.if_text();
  const List* list = object.if_list();
  if (key.is_integral() && list) {
    if (const auto i = place_of(key.as_int(), list->items.size())) return list->items[*i];
  } else if (key.is_integral() && text) {
    BN_RETURN_IF_ERROR(run.charge_bytes(4 * text->size()));
    const std::vector<uint32_t> offsets = char_offsets(text->bytes());
    if (const auto i = place_of(key.as_int(), offsets.size() - 1)) {
      return Value::text(text->substr(offsets[*i], offsets[*i + 1]));
    }
  } else if (key.if_text() && !object.if_dict()) {
    return get_attribute(run, object, key.if_text()->bytes());
  }
  BN_ASSIGN_OR_RETURN(const Text name, to_text(run, key));
  return missing(object, name.bytes());
}

namespace {

// Python's slice of a sequence of n: the places, in order.
Result<std::vector<size_t>> slice_places(Run& run, size_t n, const Value& start, const Value& stop, const Value& step) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->is_integral()) return run.error("a slice needs whole numbers");
  }
  const auto count = static_cast<int64_t>(n);
  const int64_t by = step.is_none() ? 1 : step.as_int();
  if (by == 0) return run.error("the step of a slice is zero");
  const int64_t lowest = by > 0 ? 0 : -1;
  const int64_t highest = by > 0 ? count : count - 1;
  const auto clip = [&](const Value& part, int64_t otherwise) {
    if (part.is_none()) return otherwise;
    const int64_t i = part.as_int();
    return std::clamp(i < 0 ? i + count : i, lowest, highest);
  };
  const int64_t from = clip(start, by > 0 ? lowest : highest);
  const int64_t to = clip(stop, by > 0 ? highest : lowest);
  std::vector<size_t> places;
  const int64_t distance = by > 0 ? to - from : from - to;
  const uint64_t stride = by > 0 ? uint64_t(by) : uint64_t(0) - uint64_t(by);
  for (uint64_t k = 0; distance > 0 && k < uint64_t(distance); k += stride) {
    places.push_back(by > 0 ? size_t(from) + k : size_t(from) - k);
    if (stride >= uint64_t(distance)) break;
  }
  return places;
}

}  // namespace

Result<Value> get_slice(Run& run, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) return undefined_error(run, object);
  if (const List* list = object.if_list()) {
    BN_RETURN_IF_ERROR(run.charge(list->items.size() / 4));
    BN_ASSIGN_OR_RETURN(const auto places, slice_places(run, list->items.size(), start, stop, step));
    std::vector<Value> items;
    items.reserve(places.size());
    for (const size_t place : places) items.push_back(list->items[place]);
    return run.list(std::move(items), list->is_tuple);
  }
  const Text* text = object.if_text();
  if (!text) return run.error("a {} has no slices", object.type_name());
  BN_RETURN_IF_ERROR(run.charge_bytes(8 * text->size()));
  const std::vector<uint32_t> offsets = char_offsets(text->bytes());
  BN_ASSIGN_OR_RETURN(const auto places, slice_places(run, offsets.size() - 1, start, stop, step));
  Text out;
  for (const size_t place : places) BN_RETURN_IF_ERROR(run.append(out, *text, offsets[place], offsets[place + 1]));
  return Value::text(std::move(out));
}

Status set_attribute(Run& run, Namespace& ns, const std::string& name, Value value) {
  if (value.holds_mutable()) return run.error("a namespace cannot hold a namespace or a loop");
  if (value.depth() > kMaxNamespaceDepth) return run.error("nested lists more than {} deep", kMaxNamespaceDepth);
  ns.attributes[name] = std::move(value);
  return ok();
}

namespace {

Result<Value> call_range(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "range", arguments, {"start", "stop", "step"}, 1));
  int64_t parts[3] = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    if (!bound.has(i)) continue;
    BN_ASSIGN_OR_RETURN(parts[i], int_argument(run, "range", bound[i]));
  }
  const int64_t start = bound.has(1) ? parts[0] : 0;
  const int64_t stop = bound.has(1) ? parts[1] : parts[0];
  const int64_t step = parts[2];
  if (step == 0) return run.error("the step of range() is zero");
  if ((step > 0) == (start >= stop) && start != stop) return run.list({});
  const uint64_t distance = step > 0 ? uint64_t(stop) - uint64_t(start) : uint64_t(start) - uint64_t(stop);
  const uint64_t stride = step > 0 ? uint64_t(step) : uint64_t(0) - uint64_t(step);
  const uint64_t n = distance / stride + (distance % stride != 0);
  BN_RETURN_IF_ERROR(run.charge(n));
  std::vector<Value> items;
  items.reserve(n);
  for (uint64_t k = 0; k < n; ++k) items.push_back(Value::integer(int64_t(uint64_t(start) + k * uint64_t(step))));
  return run.list(std::move(items));
}

// Where namespace() and dict() take their initial values from: a dict, then named arguments.
Result<std::vector<std::pair<Value, Value>>> initial_items(Run& run, std::string_view callee,
                                                           const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1) return run.error("'{}' takes one dict and named arguments", callee);
  for (const Value& value : arguments.positional) {
    const Dict* dict = value.if_dict();
    if (!dict) return run.error("'{}' needs a dict, not a {}", callee, value.type_name());
    items = dict->items;
  }
  for (const auto& [name, value] : arguments.named) items.emplace_back(Value::text(name), value);
  BN_RETURN_IF_ERROR(run.charge(items.size()));
  return items;
}

Result<Value> call_namespace(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(auto items, initial_items(run, "namespace", arguments));
  const auto ns = std::make_shared<Namespace>();
  for (auto& [key, value] : items) {
    BN_ASSIGN_OR_RETURN(const Text name, to_text(run, key));
    BN_RETURN_IF_ERROR(set_attribute(run, *ns, name.bytes(), std::move(value)));
  }
  return Value::of(std::shared_ptr<Namespace>(ns));
}

Result<Value> call_dict(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(auto items, initial_items(run, "dict", arguments));
  return run.dict(std::move(items));
}

Result<Value> call_raise_exception(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "raise_exception", arguments, {"message"}, 1));
  BN_ASSIGN_OR_RETURN(const Text message, to_text(run, bound[0]));
  return run.fail(message.bytes());
}

// The clock in the local time zone. Each directive on its own, so that no format makes strftime write without bound.
Result<Value> call_strftime_now(Run& run, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "strftime_now", arguments, {"format"}, 1));
  BN_ASSIGN_OR_RETURN(const Text* format, text_argument(run, "strftime_now", bound[0]));
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  if (!localtime_r(&now, &local)) return run.error("the clock has no local time");
  const std::string& f = format->bytes();
  Text out;
  for (size_t i = 0; i < f.size(); ++i) {
    if (f[i] != '%') {
      BN_RETURN_IF_ERROR(run.append(out, *format, i, i + 1));
      continue;
    }
    const bool has_flag = i + 1 < f.size() && f[i + 1] == '-';
    i += 1 + has_flag;
    if (i >= f.size() || std::string_view("aAbBcdFHIjmMpSTUwWxXyYzZ%").find(f[i]) == std::string_view::npos) {
      return run.error("strftime_now does not know this directive of '{}'", f.substr(0, 80));
    }
    char text[128];
    const char directive[] = {'%', has_flag ? '-' : f[i], has_flag ? f[i] : '\0', '\0'};
    BN_RETURN_IF_ERROR(run.charge(8));
    BN_RETURN_IF_ERROR(run.append(out, std::string_view(text, std::strftime(text, sizeof(text), directive, &local))));
  }
  return Value::text(std::move(out));
}

}  // namespace

const Builtin* find_builtin(std::string_view name) {
  static constexpr Builtin kBuiltins[] = {{"range", call_range},
                                          {"namespace", call_namespace},
                                          {"dict", call_dict},
                                          {"raise_exception", call_raise_exception},
                                          {"strftime_now", call_strftime_now}};
  const auto* found =
      std::find_if(std::begin(kBuiltins), std::end(kBuiltins), [name](const Builtin& b) { return b.name == name; });
  return found != std::end(kBuiltins) ? found : nullptr;
}

}  // namespace bitnet::jinja
