// Methods of str.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>

namespace bitnet::jinja {

namespace {

// strip, lstrip, rstrip.
template <bool kLeft, bool kRight>
Result<Value> strip(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "strip", arguments, {"chars"}, 0));
  BN_RETURN_IF_ERROR(run.charge_bytes(text.cost_bytes()));
  return strip_text(run, "strip", text, bound, kLeft, kRight);
}

template <bool kAtEnd>
Result<Value> has_affix(Run& run, const Text& text, const Arguments& arguments) {
  const char* name = kAtEnd ? "endswith" : "startswith";
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, name, arguments, {"prefix"}, 1));
  std::vector<Value> affixes = {bound[0]};
  if (const List* list = bound[0].if_list(); list && list->is_tuple) affixes = list->items;
  for (const Value& value : affixes) {
    BN_ASSIGN_OR_RETURN(const Text* affix, text_argument(run, name, value));
    BN_RETURN_IF_ERROR(run.charge(1));
    BN_RETURN_IF_ERROR(run.charge_bytes(affix->size()));
    const size_t n = affix->size();
    if (n > text.size()) continue;
    if (text.bytes().compare(kAtEnd ? text.size() - n : 0, n, affix->bytes()) == 0) return Value::boolean(true);
  }
  return Value::boolean(false);
}

template <bool kAtEnd>
Result<Value> remove_affix(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Value has, has_affix<kAtEnd>(run, text, arguments));
  const size_t n = has.truthy() && arguments.positional.size() == 1 && arguments.positional[0].if_text()
                       ? arguments.positional[0].if_text()->size()
                       : 0;
  BN_RETURN_IF_ERROR(run.charge_bytes(text.cost_bytes()));
  return Value::text(kAtEnd ? text.substr(0, text.size() - n) : text.substr(n, text.size()));
}

using Ranges = std::vector<std::pair<size_t, size_t>>;

// The words between white space; the last one takes the rest after `max_splits`.
Result<Ranges> split_at_space(Run& run, std::string_view s, uint64_t max_splits) {
  Ranges ranges;
  size_t at = 0;
  while (true) {
    at += strip_range(s.substr(at), true, false).first;
    if (at >= s.size()) return ranges;
    BN_RETURN_IF_ERROR(run.charge(1));
    size_t end = at;
    while (end < s.size() && space_length(s, end) == 0) end += char_length(s, end);
    if (ranges.size() == max_splits) end = s.size();
    ranges.emplace_back(at, end);
    at = end;
  }
}

Result<Ranges> split_at(Run& run, std::string_view s, std::string_view separator, uint64_t max_splits) {
  Ranges ranges;
  size_t at = 0;
  while (ranges.size() < max_splits) {
    BN_RETURN_IF_ERROR(run.charge(1));
    const size_t found = find_text(s, separator, at);
    if (found == std::string_view::npos) break;
    ranges.emplace_back(at, found);
    at = found + separator.size();
  }
  ranges.emplace_back(at, s.size());
  return ranges;
}

Result<Ranges> split_at_from_end(Run& run, std::string_view s, std::string_view separator, uint64_t max_splits) {
  Ranges ranges;
  size_t end = s.size();
  while (ranges.size() < max_splits) {
    BN_RETURN_IF_ERROR(run.charge(1));
    // Each search may look through all that is left.
    if (separator.size() > 16) BN_RETURN_IF_ERROR(run.charge_bytes(4 * end));
    const size_t found = rfind_text(s.substr(0, end), separator);
    if (found == std::string_view::npos) break;
    ranges.emplace_back(found + separator.size(), end);
    end = found;
  }
  ranges.emplace_back(0, end);
  std::reverse(ranges.begin(), ranges.end());
  return ranges;
}

template <bool kFromEnd>
Result<Value> split(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "split", arguments, {"sep", "maxsplit"}, 0));
  BN_ASSIGN_OR_RETURN(const int64_t max, int_argument(run, "split", bound.get(1, Value::integer(-1))));
  const uint64_t max_splits = max < 0 ? UINT64_MAX : uint64_t(max);
  BN_RETURN_IF_ERROR(run.charge_bytes(2 * text.cost_bytes()));
  Ranges ranges;
  if (!bound.has(0) || bound[0].is_none()) {
    if (kFromEnd && max >= 0) return run.error("rsplit() with a limit needs a separator");
    BN_ASSIGN_OR_RETURN(ranges, split_at_space(run, text.bytes(), max_splits));
  } else {
    BN_ASSIGN_OR_RETURN(const Text* separator, text_argument(run, "split", bound[0]));
    if (separator->empty()) return run.error("the separator of split() is empty");
    BN_ASSIGN_OR_RETURN(ranges, kFromEnd ? split_at_from_end(run, text.bytes(), separator->bytes(), max_splits)
                                         : split_at(run, text.bytes(), separator->bytes(), max_splits));
  }
  std::vector<Value> pieces;
  for (const auto& [begin, end] : ranges) pieces.push_back(Value::text(text.substr(begin, end)));
  return run.list(std::move(pieces));
}

Result<Value> splitlines(Run& run, const Text& text, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "splitlines", arguments, {}, 0));
  BN_RETURN_IF_ERROR(run.charge_bytes(text.cost_bytes()));
  const std::string& s = text.bytes();
  std::vector<Value> lines;
  for (size_t at = 0; at < s.size();) {
    BN_RETURN_IF_ERROR(run.charge(1));
    const size_t end = std::min(s.find_first_of("\r\n", at), s.size());
    lines.push_back(Value::text(text.substr(at, end)));
    at = end + (s.compare(end, 2, "\r\n") == 0 ? 2 : 1);
  }
  return run.list(std::move(lines));
}

template <bool kLast>
Result<Value> find(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "find", arguments, {"sub"}, 1));
  BN_ASSIGN_OR_RETURN(const Text* sub, text_argument(run, "find", bound[0]));
  BN_RETURN_IF_ERROR(run.charge_bytes(2 * text.size()));
  const std::string_view s = text.bytes();
  const size_t at = kLast ? rfind_text(s, sub->bytes()) : find_text(s, sub->bytes(), 0);
  return Value::integer(at == std::string_view::npos ? -1 : int64_t(count_chars(s.substr(0, at))));
}

Result<Value> count(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "count", arguments, {"sub"}, 1));
  BN_ASSIGN_OR_RETURN(const Text* sub, text_argument(run, "count", bound[0]));
  BN_RETURN_IF_ERROR(run.charge_bytes(2 * text.size()));
  if (sub->empty()) return Value::integer(int64_t(count_chars(text.bytes())) + 1);
  BN_ASSIGN_OR_RETURN(const Ranges ranges, split_at(run, text.bytes(), sub->bytes(), UINT64_MAX));
  return Value::integer(int64_t(ranges.size()) - 1);
}

Result<Value> replace(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "replace", arguments, {"old", "new", "count"}, 2));
  BN_ASSIGN_OR_RETURN(const Text* from, text_argument(run, "replace", bound[0]));
  BN_ASSIGN_OR_RETURN(const Text* to, text_argument(run, "replace", bound[1]));
  BN_ASSIGN_OR_RETURN(const int64_t n, int_argument(run, "replace", bound.get(2, Value::integer(-1))));
  return replace_text(run, text, *from, *to, n);
}

Result<Value> join(Run& run, const Text& text, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "join", arguments, {"iterable"}, 1));
  BN_ASSIGN_OR_RETURN(const auto items, iterate(run, bound[0]));
  for (const Value& item : items->items) BN_RETURN_IF_ERROR(text_argument(run, "join", item));
  return join_texts(run, bound[0], text);
}

// str.title: a word starts after anything that is no letter.
Text title(const Text& text) {
  bool in_word = false;
  return text.map_bytes([&in_word](char c) {
    const char mapped = in_word ? to_lower(c) : to_upper(c);
    in_word = is_upper(c) || is_lower(c) || static_cast<unsigned char>(c) >= 0x80;
    return mapped;
  });
}

template <Text (*kMap)(const Text&)>
Result<Value> map_text(Run& run, const Text& text, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "method", arguments, {}, 0));
  BN_RETURN_IF_ERROR(run.charge_bytes(2 * text.cost_bytes()));
  return Value::text(kMap(text));
}

template <bool (*kHolds)(std::string_view)>
Result<Value> check_text(Run& run, const Text& text, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "method", arguments, {}, 0));
  BN_RETURN_IF_ERROR(run.charge_bytes(text.size()));
  return Value::boolean(!text.empty() && kHolds(text.bytes()));
}
bool all_digits(std::string_view s) { return std::all_of(s.begin(), s.end(), is_digit); }

constexpr TextMethod kTextMethods[] = {
    {"capitalize", map_text<capitalize>},
    {"count", count},
    {"endswith", has_affix<true>},
    {"find", find<false>},
    {"isdigit", check_text<all_digits>},
    {"isspace", check_text<is_all_space>},
    {"join", join},
    {"lower", map_text<lower>},
    {"lstrip", strip<true, false>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"replace", replace},
    {"rfind", find<true>},
    {"rsplit", split<true>},
    {"rstrip", strip<false, true>},
    {"split", split<false>},
    {"splitlines", splitlines},
    {"startswith", has_affix<false>},
    {"strip", strip<true, true>},
    {"title", map_text<title>},
    {"upper", map_text<upper>},
};

}  // namespace

Result<Value> strip_text(Run& run, std::string_view callee, const Text& text, const Bound& bound, bool left,
                         bool right) {
  auto range = strip_range(text.bytes(), left, right);
  if (bound.has(0) && !bound[0].is_none()) {
    BN_ASSIGN_OR_RETURN(const Text* chars, text_argument(run, callee, bound[0]));
    BN_RETURN_IF_ERROR(run.charge_bytes(4 * (text.size() + 1) * chars->size()));
    range = strip_range(text.bytes(), left, right, chars->bytes());
  }
  return Value::text(text.substr(range.first, range.second));
}

const TextMethod* find_text_method(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTextMethods), std::end(kTextMethods),
                                   [name](const TextMethod& method) { return method.name == name; });
  return found != std::end(kTextMethods) ? found : nullptr;
}

}  // namespace bitnet::jinja
