// Filters that make text of anything.

#include "tokenizer/jinja/builtins.h"

#include <algorithm>

namespace bitnet::jinja {

Text upper(const Text& text) { return text.map_bytes(to_upper); }
Text lower(const Text& text) { return text.map_bytes(to_lower); }

Text capitalize(const Text& text) {
  bool first = true;
  return text.map_bytes([&first](char c) { return std::exchange(first, false) ? to_upper(c) : to_lower(c); });
}

Result<Value> replace_text(Run& run, const Text& text, const Text& from, const Text& to, int64_t max_count) {
  BN_RETURN_IF_ERROR(run.charge_bytes(text.size()));
  const std::string_view s = text.bytes();
  const bool between_chars = from.empty();
  Text out;
  size_t at = 0;
  for (int64_t n = 0; max_count < 0 || n < max_count; ++n) {
    BN_RETURN_IF_ERROR(run.charge(1));
    size_t found = between_chars ? at : find_text(s, from.bytes(), at);
    if (between_chars && n > 0) found = at < s.size() ? at + char_length(s, at) : std::string_view::npos;
    if (found == std::string_view::npos) break;
    BN_RETURN_IF_ERROR(run.append(out, text, at, found));
    BN_RETURN_IF_ERROR(run.append(out, to));
    at = found + from.size();
  }
  BN_RETURN_IF_ERROR(run.append(out, text, at, s.size()));
  return Value::text(std::move(out));
}

Result<Value> join_texts(Run& run, const Value& items, const Text& separator) {
  BN_ASSIGN_OR_RETURN(const auto list, iterate(run, items));
  Text out;
  for (size_t i = 0; i < list->items.size(); ++i) {
    BN_RETURN_IF_ERROR(run.charge(1));
    if (i > 0) BN_RETURN_IF_ERROR(run.append(out, separator));
    BN_RETURN_IF_ERROR(append_str(run, out, list->items[i]));
  }
  return Value::text(std::move(out));
}

namespace {

// A filter without arguments that maps text to text.
template <Text (*kMap)(const Text&)>
Result<Value> map_text(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "filter", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Text text, to_text(run, input));
  BN_RETURN_IF_ERROR(run.charge_bytes(2 * text.cost_bytes()));
  return Value::text(kMap(text));
}

Text same(const Text& text) { return text; }

// Jinja's own: a word starts after white space, a hyphen or an opening bracket.
Text title(const Text& text) {
  bool starts = true;
  return text.map_bytes([&starts](char c) {
    const char mapped = starts ? to_upper(c) : to_lower(c);
    starts = std::string_view("-({[< \t\n\r\f\v").find(c) != std::string_view::npos;
    return mapped;
  });
}

Result<Value> filter_trim(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "trim", arguments, {"chars"}, 0));
  BN_ASSIGN_OR_RETURN(const Text text, to_text(run, input));
  return strip_text(run, "trim", text, bound, true, true);
}

Result<Value> filter_replace(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "replace", arguments, {"old", "new", "count"}, 2));
  BN_ASSIGN_OR_RETURN(const Text text, to_text(run, input));
  BN_ASSIGN_OR_RETURN(const Text from, to_text(run, bound[0]));
  BN_ASSIGN_OR_RETURN(const Text to, to_text(run, bound[1]));
  int64_t count = -1;
  if (bound.has(2) && !bound[2].is_none()) {
    BN_ASSIGN_OR_RETURN(count, int_argument(run, "replace", bound[2]));
  }
  return replace_text(run, text, from, to, count);
}

Result<Value> filter_escape(Run& run, const Value& input, const Arguments& arguments) {
  BN_RETURN_IF_ERROR(bind(run, "escape", arguments, {}, 0));
  BN_ASSIGN_OR_RETURN(const Text text, to_text(run, input));
  Text out;
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.bytes()[i];
    const char* name = c == '&'    ? "&amp;"
                       : c == '<'  ? "&lt;"
                       : c == '>'  ? "&gt;"
                       : c == '\'' ? "&#39;"
                       : c == '"'  ? "&#34;"
                                   : nullptr;
    if (!name) continue;
    BN_RETURN_IF_ERROR(run.charge(1));
    BN_RETURN_IF_ERROR(run.append(out, text, plain, i));
    BN_RETURN_IF_ERROR(run.append(out, name, text.origin_at(i)));
    plain = i + 1;
  }
  BN_RETURN_IF_ERROR(run.append(out, text, plain, text.size()));
  return Value::text(std::move(out));
}

Result<Value> filter_indent(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "indent", arguments, {"width", "first", "blank"}, 0));
  BN_ASSIGN_OR_RETURN(const Text* input_text, text_argument(run, "indent", input));
  const Text& text = *input_text;
  Text indent("    ");
  if (bound.has(0) && bound[0].if_text()) {
    indent = *bound[0].if_text();
  } else if (bound.has(0)) {
    BN_ASSIGN_OR_RETURN(const int64_t width, int_argument(run, "indent", bound[0]));
    if (width > 1000) return run.error("an indent of {} is too wide", width);
    indent = Text(std::string(size_t(std::max<int64_t>(width, 0)), ' '));
  }
  const std::string_view s = text.bytes();
  Text out;
  for (size_t begin = 0; begin <= s.size();) {
    BN_RETURN_IF_ERROR(run.charge(1));
    const size_t end = std::min(s.find('\n', begin), s.size());
    const bool is_blank = begin == end;
    if (begin == 0 ? bound.truthy(1) : !is_blank || bound.truthy(2)) BN_RETURN_IF_ERROR(run.append(out, indent));
    BN_RETURN_IF_ERROR(run.append(out, text, begin, std::min(end + 1, s.size())));
    begin = end + 1;
  }
  return Value::text(std::move(out));
}

Result<Value> filter_join(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "join", arguments, {"d", "attribute"}, 0));
  BN_ASSIGN_OR_RETURN(const Text separator, to_text(run, bound.get(0, Value::text(""))));
  if (!bound.has(1)) return join_texts(run, input, separator);
  BN_ASSIGN_OR_RETURN(const auto list, iterate(run, input));
  std::vector<Value> values;
  for (const Value& item : list->items) {
    BN_ASSIGN_OR_RETURN(Value value, get_path(run, item, bound[1]));
    values.push_back(std::move(value));
  }
  BN_ASSIGN_OR_RETURN(const Value items, run.list(std::move(values)));
  return join_texts(run, items, separator);
}

Result<Value> filter_tojson(Run& run, const Value& input, const Arguments& arguments) {
  BN_ASSIGN_OR_RETURN(const Bound bound, bind(run, "tojson", arguments, {"indent", "ensure_ascii", "sort_keys"}, 0));
  if (bound.truthy(1)) return run.error("tojson(ensure_ascii=true) is not supported");
  int64_t indent = -1;
  if (bound.has(0) && !bound[0].is_none()) {
    BN_ASSIGN_OR_RETURN(indent, int_argument(run, "tojson", bound[0]));
    indent = std::clamp<int64_t>(indent, 0, 16);
  }
  Text out;
  BN_RETURN_IF_ERROR(append_json(run, out, input, static_cast<int>(indent), bound.truthy(2)));
  return Value::text(std::move(out));
}

}  // namespace

const std::vector<Filter>& text_filters() {
  static const std::vector<Filter> kFilters = {
      {"capitalize", map_text<capitalize>},
      {"e", filter_escape},
      {"escape", filter_escape},
      {"indent", filter_indent},
      {"join", filter_join},
      {"lower", map_text<lower>},
      {"replace", filter_replace},
      {"safe", map_text<same>},
      {"string", map_text<same>},
      {"title", map_text<title>},
      {"tojson", filter_tojson},
      {"trim", filter_trim},
      {"upper", map_text<upper>},
  };
  return kFilters;
}

}  // namespace bitnet::jinja
