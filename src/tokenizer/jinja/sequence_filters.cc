// Filters over lists, and those that choose items of them.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>

namespace bitnet::jinja {

Result<Value> get_path(Run& run, const Value& object, const Value& path) {
  if (!path.if_text()) return get_item(run, object, path);
  const std::string& names = path.if_text()->bytes();
  Value value = object;
  for (size_t begin = 0; begin <= names.size();) {
    const size_t end = std::min(names.find('.', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    const bool is_index = !name.empty() && name.size() < 10 && std::all_of(name.begin(), name.end(), is_digit);
    BN_RETURN_IF_ERROR(run.charge(1));
    BN_ASSIGN_OR_RETURN(value, get_item(run, value, is_index ? Value::integer(std::stoi(name)) : Value::text(name)));
    begin = end + 1;
  }
  return value;
}

namespace {

using Items = std::shared_ptr<const List>;

Result<Value> filter_length(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "length", arguments, {}, 0));
  if (const Text* text = input.if_text()) {
    BN_RETURN_IF_ERROR(run.charge_bytes(2 * text->size()));
    return Value::integer(int64_t(count_chars(text->bytes())));
  }
  if (const List* list = input.if_list()) return Value::integer(int64_t(list->items.size()));
  if (const Dict* dict = input.if_dict()) return Value::integer(int64_t(dict->items.size()));
  if (input.is_undefined()) return Value::integer(0);
  return run.error("a {} has no length", input.type_name());
}

Result<Value> filter_default(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "default", arguments, {"default_value", "boolean"}, 0));
  const bool replaces = input.is_undefined() || (bound.truthy(1) && !input.truthy());
  return replaces ? bound.get(0, Value::text("")) : input;
}

Result<Value> filter_first(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "first", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  return items->items.empty() ? Value::undefined("the first item of nothing") : items->items.front();
}

Result<Value> filter_last(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "last", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  return items->items.empty() ? Value::undefined("the last item of nothing") : items->items.back();
}

Result<Value> filter_list(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "list", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  return run.list(items->items);
}

Result<Value> filter_items(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "items", arguments, {}, 0));
  if (input.is_undefined()) return run.list({});
  if (!input.if_dict()) return run.error("'items' needs a dict, not a {}", input.type_name());
  return dict_items(run, *input.if_dict());
}

Result<Value> filter_reverse(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "reverse", arguments, {}, 0));
  if (input.if_text()) return get_slice(run, input, Value::none(), Value::none(), Value::integer(-1));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  return run.list(std::vector<Value>(items->items.rbegin(), items->items.rend()));
}

Result<Value> filter_sum(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "sum", arguments, {"attribute", "start"}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  Value total = bound.get(1, Value::integer(0));
  for (const Value& item : items->items) {
    Value term = item;
    BN_RETURN_IF_ERROR(run.charge(1));
    if (bound.has(0) && !bound[0].is_none()) {
      BN_ASSIGN_OR_RETURN(term, get_path(run, item, bound[0]));
    }
    BN_ASSIGN_OR_RETURN(total, arithmetic(run, Op::kAdd, total, term));
  }
  return total;
}

// map('filter', arguments...) or map(attribute='a.b', default=x).
Result<Value> filter_map(Run& run, const Value& input, const Arguments& arguments) {
  if (!input.truthy()) return run.list({});  // none as well
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  const Filter* filter = nullptr;
  Arguments rest;
  Bound bound;
  if (arguments.positional.empty()) {
    BN_ASSIGN_OR_RETURN(bound, bind(run, "map", arguments, {"attribute", "default"}, 1));
  } else {
    BN_ASSIGN_OR_RETURN(const Text* name, text_argument(run, "map", arguments.positional[0]));
    filter = find_filter(name->bytes());
    if (!filter) return run.error("there is no filter '{}'", name->bytes().substr(0, 80));
    // A map of maps would recurse as deep as the lists nest.
    if (filter->apply == filter_map) return run.error("map('map') is not supported");
    rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
    rest.named = arguments.named;
  }
  std::vector<Value> values;
  for (const Value& item : items->items) {
    BN_RETURN_IF_ERROR(run.charge(1));
    BN_ASSIGN_OR_RETURN(Value value, filter ? filter->apply(run, item, rest) : get_path(run, item, bound[0]));
    if (!filter && value.is_undefined()) value = bound.get(1, std::move(value));
    values.push_back(std::move(value));
  }
  return run.list(std::move(values));
}

// select, reject and, with an attribute's name in front, selectattr and rejectattr: the items whose value passes
// (or not) a test; without a test, that are truthy (or not).
template <bool kByAttribute, bool kKeeps>
Result<Value> choose(Run& run, const Value& input, const Arguments& arguments) {
  if (!input.truthy()) return run.list({});  // none as well
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  const size_t n = arguments.positional.size();
  if (kByAttribute && n == 0) return run.error("the name of an attribute is missing");
  const Test* test = nullptr;
  Arguments rest;
  if (n > kByAttribute) {
    BN_ASSIGN_OR_RETURN(const Text* name, text_argument(run, "select", arguments.positional[kByAttribute]));
    test = find_test(name->bytes());
    if (!test) return run.error("there is no test '{}'", name->bytes().substr(0, 80));
    rest.positional.assign(arguments.positional.begin() + kByAttribute + 1, arguments.positional.end());
  }
  std::vector<Value> chosen;
  for (const Value& item : items->items) {
    BN_RETURN_IF_ERROR(run.charge(1));
    Value value = item;
    if (kByAttribute) {
      BN_ASSIGN_OR_RETURN(value, get_path(run, item, arguments.positional[0]));
    }
    bool passes = value.truthy();
    if (test) {
      BN_ASSIGN_OR_RETURN(passes, test->apply(run, value, rest));
    }
    if (passes == kKeeps) chosen.push_back(item);
  }
  return run.list(std::move(chosen));
}

}  // namespace

const std::vector<Filter>& sequence_filters() {
  static const std::vector<Filter> kFilters = {
      {"count", filter_length},
      {"d", filter_default},
      {"default", filter_default},
      {"first", filter_first},
      {"items", filter_items},
      {"last", filter_last},
      {"length", filter_length},
      {"list", filter_list},
      {"map", filter_map},
      {"reject", choose<false, false>},
      {"rejectattr", choose<true, false>},
      {"reverse", filter_reverse},
      {"select", choose<false, true>},
      {"selectattr", choose<true, true>},
      {"sum", filter_sum},
  };
  return kFilters;
}

const Filter* find_filter(std::string_view name) {
  for (const auto* table : {&text_filters(), &number_filters(), &sequence_filters(), &ordering_filters()}) {
    for (const Filter& filter : *table) {
      if (filter.name == name) return &filter;
    }
  }
  return nullptr;
}

}  // namespace bitnet::jinja
