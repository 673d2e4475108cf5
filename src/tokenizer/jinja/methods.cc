// Methods of dict, list and loop.

#include "tokenizer/jinja/builtins.h"

namespace bitnet::jinja {

Result<Value> dict_items(Run& run, const Dict& dict) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict.items) {
    BN_ASSIGN_OR_RETURN(Value pair, run.list({key, value}, true));
    pairs.push_back(std::move(pair));
  }
  return run.list(std::move(pairs));
}

namespace {

Result<Value> dict_get(Run& run, const Dict& dict, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "get", arguments, {"key", "default"}, 1));
  BN_ASSIGN_OR_RETURN(const Value* found, find_key(run, dict, bound[0]));
  return found ? *found : bound.get(1, Value::none());
}

Result<Value> dict_column(Run& run, const Dict& dict, bool keys) {
  std::vector<Value> column;
  BN_RETURN_IF_ERROR(run.charge(dict.items.size()));
  for (const auto& item : dict.items) column.push_back(keys ? item.first : item.second);
  return run.list(std::move(column));
}

Result<Value> list_count(Run& run, const List& list, const Arguments& arguments, bool wants_index) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, wants_index ? "index" : "count", arguments, {"value"}, 1));
  int64_t n = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    BN_ASSIGN_OR_RETURN(const bool same, equals(run, list.items[i], bound[0]));
    if (same && wants_index) return Value::integer(int64_t(i));
    n += same;
  }
  if (wants_index) return run.error("the value is not in the list");
  return Value::integer(n);
}

template <class T>
Result<std::optional<Value>> some(Result<T> result) {
  if (!result) return std::move(result.error());
  return std::optional<Value>(*std::move(result));
}

}  // namespace

Result<std::optional<Value>> call_method(Run& run, const Value& object, std::string_view name,
                                         const Arguments& arguments) {
  if (const Text* text = object.if_text()) {
    if (const TextMethod* method = find_text_method(name)) return some(method->call(run, *text, arguments));
  } else if (const Dict* dict = object.if_dict()) {
    if (name == "get") return some(dict_get(run, *dict, arguments));
    const bool takes_none = arguments.positional.empty() && arguments.named.empty();
    if (takes_none && name == "items") return some(dict_items(run, *dict));
    if (takes_none && (name == "keys" || name == "values")) return some(dict_column(run, *dict, name == "keys"));
  } else if (const List* list = object.if_list()) {
    if (name == "count" || name == "index") return some(list_count(run, *list, arguments, name == "index"));
  } else if (const Loop* loop = object.if_loop()) {
    if (name == "cycle" && !arguments.positional.empty()) {
      return std::optional<Value>(arguments.positional[loop->index % arguments.positional.size()]);
    }
  }
  return std::optional<Value>();
}

}  // namespace bitnet::jinja
