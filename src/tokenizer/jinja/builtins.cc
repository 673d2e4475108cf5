// Arguments, attributes, items and slices.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>

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

}  // namespace bitnet::jinja
