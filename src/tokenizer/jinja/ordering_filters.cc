// Filters that compare the items of a list.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>

namespace bitnet::jinja {

namespace {

using Items = std::shared_ptr<const List>;

// What each item is ordered by: itself or an attribute (none: itself), text in lower case unless `case_sensitive`.
Result<std::vector<Value>> sort_keys(Run& run, const List& list, const Value& attribute, bool case_sensitive) {
  std::vector<Value> keys;
  for (const Value& item : list.items) {
    BN_RETURN_IF_ERROR(run.charge(1));
    Value key = item;
    if (!attribute.is_none()) {
      BN_ASSIGN_OR_RETURN(key, get_path(run, item, attribute));
    }
    if (key.if_text() && !case_sensitive) {
      BN_RETURN_IF_ERROR(run.charge_bytes(key.if_text()->cost_bytes()));
      key = Value::text(key.if_text()->map_bytes(to_lower));
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

// The items in the order of their keys; equal ones stay as they are.
Result<Value> sorted(Run& run, const List& list, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // Once a comparison fails all others say "not less", which ends the sort; the failure is what it returns.
  Status failure = ok();
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!failure) return false;
    Result<bool> less = compare_with(run, Op::kLt, keys[reverse ? b : a], keys[reverse ? a : b]);
    if (!less) failure = std::move(less.error());
    return less.has_value() && *less;
  });
  BN_RETURN_IF_ERROR(std::move(failure));
  std::vector<Value> items;
  for (const size_t i : order) items.push_back(list.items[i]);
  return run.list(std::move(items));
}

Result<Value> filter_sort(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "sort", arguments, {"reverse", "case_sensitive", "attribute"}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  BN_ASSIGN_OR_RETURN(const auto keys, sort_keys(run, *items, bound.get(2, Value::none()), bound.truthy(1)));
  return sorted(run, *items, keys, bound.truthy(0));
}

// The pairs of a dict by their key or their value.
Result<Value> filter_dictsort(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "dictsort", arguments, {"case_sensitive", "by", "reverse"}, 0));
  if (!input.if_dict()) return run.error("'dictsort' needs a dict, not a {}", input.type_name());
  BN_ASSIGN_OR_RETURN(const Text by, to_text(run, bound.get(1, Value::text("key"))));
  if (by.bytes() != "key" && by.bytes() != "value") return run.error("'dictsort' sorts by 'key' or 'value'");
  BN_ASSIGN_OR_RETURN(const Value pairs, dict_items(run, *input.if_dict()));
  BN_ASSIGN_OR_RETURN(const auto keys,
                      sort_keys(run, *pairs.if_list(), Value::integer(by.bytes() == "value"), bound.truthy(0)));
  return sorted(run, *pairs.if_list(), keys, bound.truthy(2));
}

Result<Value> filter_unique(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "unique", arguments, {"case_sensitive", "attribute"}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  BN_ASSIGN_OR_RETURN(const auto keys, sort_keys(run, *items, bound.get(1, Value::none()), bound.truthy(0)));
  std::vector<size_t> chosen;
  for (size_t i = 0; i < keys.size(); ++i) {
    bool seen = false;
    for (size_t k = 0; k < chosen.size() && !seen; ++k) {
      BN_ASSIGN_OR_RETURN(seen, equals(run, keys[chosen[k]], keys[i]));
    }
    if (!seen) chosen.push_back(i);
  }
  std::vector<Value> values;
  for (const size_t i : chosen) values.push_back(items->items[i]);
  return run.list(std::move(values));
}

Result<Value> extreme(Run& run, std::string_view name, Op better, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, name, arguments, {"case_sensitive", "attribute"}, 0));
  BN_ASSIGN_OR_RETURN(const Items items, iterate(run, input));
  BN_ASSIGN_OR_RETURN(const auto keys, sort_keys(run, *items, bound.get(1, Value::none()), bound.truthy(0)));
  if (keys.empty()) return Value::undefined("an extreme of nothing");
  size_t best = 0;
  for (size_t i = 1; i < keys.size(); ++i) {
    BN_ASSIGN_OR_RETURN(const bool wins, compare_with(run, better, keys[i], keys[best]));
    if (wins) best = i;
  }
  return items->items[best];
}
Result<Value> filter_min(Run& run, const Value& input, const Arguments& arguments) {
  return extreme(run, "min", Op::kLt, input, arguments);
}
Result<Value> filter_max(Run& run, const Value& input, const Arguments& arguments) {
  return extreme(run, "max", Op::kGt, input, arguments);
}

}  // namespace

const std::vector<Filter>& ordering_filters() {
  static const std::vector<Filter> kFilters = {{"dictsort", filter_dictsort},
                                               {"max", filter_max},
                                               {"min", filter_min},
                                               {"sort", filter_sort},
                                               {"unique", filter_unique}};
  return kFilters;
}

}  // namespace bitnet::jinja
