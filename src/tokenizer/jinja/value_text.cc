// Python's str() and repr() and JSON of a value.

#include "tokenizer/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace bitnet::jinja {

// As Python: the shortest digits that round-trip, with an exponent below 1e-4 and from 1e16.
std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  const double size = std::fabs(d);
  const bool is_fixed = size == 0.0 || (size >= 1e-4 && size < 1e16);
  const auto format = is_fixed ? std::chars_format::fixed : std::chars_format::scientific;
  std::string out(buffer, std::to_chars(buffer, buffer + sizeof(buffer), d, format).ptr);
  if (is_fixed && out.find('.') == std::string::npos) out += ".0";
  return out;
}

namespace {

Status append_hex(Run& run, Text& out, const char* prefix, uint8_t byte, Origin origin) {
  constexpr char kDigits[] = "0123456789abcdef";
  return run.append(out, std::string(prefix) + kDigits[byte >> 4] + kDigits[byte & 15], origin);
}

// The characters of a Python string literal or of a JSON string; escapes have the origin of what they stand for.
Status append_escaped(Run& run, Text& out, const Text& text, char quote, bool json) {
  const std::string_view s = text.bytes();
  size_t plain = 0;  // start of the stretch that needs no escape
  for (size_t i = 0; i < s.size(); ++i) {
    const auto c = static_cast<uint8_t>(s[i]);
    const char* named = c == '\n'                  ? "\\n"
                        : c == '\r'                ? "\\r"
                        : c == '\t'                ? "\\t"
                        : c == '\\'                ? "\\\\"
                        : json && c == '\b'        ? "\\b"
                        : json && c == '\f'        ? "\\f"
                        : char(c) == quote && json ? "\\\""
                        : char(c) == quote         ? "\\'"
                                                   : nullptr;
    if (!named && c >= 0x20 && (json || c != 0x7f)) continue;
    BN_RETURN_IF_ERROR(run.charge(1));
    BN_RETURN_IF_ERROR(run.append(out, text, plain, i));
    if (named) {
      BN_RETURN_IF_ERROR(run.append(out, named, text.origin_at(i)));
    } else {
      BN_RETURN_IF_ERROR(append_hex(run, out, json ? "\\u00" : "\\x", c, text.origin_at(i)));
    }
    plain = i + 1;
  }
  return run.append(out, text, plain, s.size());
}

Status append_text_repr(Run& run, Text& out, const Text& text) {
  const bool single = text.bytes().find('\'') != std::string::npos;
  const bool doubled = text.bytes().find('"') != std::string::npos;
  const char quote = single && !doubled ? '"' : '\'';
  BN_RETURN_IF_ERROR(run.append(out, std::string_view(&quote, 1)));
  if (quote == '"') {
    BN_RETURN_IF_ERROR(append_escaped(run, out, text, '\0', false));
  } else {
    BN_RETURN_IF_ERROR(append_escaped(run, out, text, quote, false));
  }
  return run.append(out, std::string_view(&quote, 1));
}

Status append_list_repr(Run& run, Text& out, const List& list) {
  BN_RETURN_IF_ERROR(run.append(out, list.is_tuple ? "(" : "["));
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) BN_RETURN_IF_ERROR(run.append(out, ", "));
    BN_RETURN_IF_ERROR(append_repr(run, out, list.items[i]));
  }
  return run.append(out, !list.is_tuple ? "]" : list.items.size() == 1 ? ",)" : ")");
}

Status append_dict_repr(Run& run, Text& out, const Dict& dict) {
  BN_RETURN_IF_ERROR(run.append(out, "{"));
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) BN_RETURN_IF_ERROR(run.append(out, ", "));
    BN_RETURN_IF_ERROR(append_repr(run, out, dict.items[i].first));
    BN_RETURN_IF_ERROR(run.append(out, ": "));
    BN_RETURN_IF_ERROR(append_repr(run, out, dict.items[i].second));
  }
  return run.append(out, "}");
}

std::string scalar_text(const Value& value) {
  if (const bool* b = value.if_bool()) return *b ? "True" : "False";
  if (value.is_integral()) return std::to_string(value.as_int());
  if (const double* d = value.if_double()) return float_repr(*d);
  if (const Loop* loop = value.if_loop()) {
    return fmt::format("<LoopContext {}/{}>", loop->index + 1, loop->items->items.size());
  }
  return value.is_none() ? "None" : fmt::format("<{}>", value.type_name());
}

}  // namespace

Status append_repr(Run& run, Text& out, const Value& value) {
  BN_RETURN_IF_ERROR(run.charge(1));
  if (const Text* text = value.if_text()) return append_text_repr(run, out, *text);
  if (const List* list = value.if_list()) return append_list_repr(run, out, *list);
  if (const Dict* dict = value.if_dict()) return append_dict_repr(run, out, *dict);
  return run.append(out, value.is_undefined() ? "Undefined" : scalar_text(value));
}

Status append_str(Run& run, Text& out, const Value& value) {
  if (const Text* text = value.if_text()) return run.append(out, *text);
  return value.is_undefined() ? ok() : append_repr(run, out, value);
}

Result<Text> to_text(Run& run, const Value& value) {
  Text out;
  BN_RETURN_IF_ERROR(append_str(run, out, value));
  return out;
}

namespace {

struct JsonWriter {
  Run& run;
  Text& out;
  int indent;
  bool sort_keys;

  Status break_line(int level) {
    return indent < 0 ? ok() : run.append(out, "\n" + std::string(size_t(indent) * size_t(level), ' '));
  }
  Status separate(size_t i, int level) {
    if (i > 0) BN_RETURN_IF_ERROR(run.append(out, indent < 0 ? ", " : ","));
    return break_line(level);
  }
  Status write_string(const Text& text) {
    BN_RETURN_IF_ERROR(run.append(out, "\""));
    BN_RETURN_IF_ERROR(append_escaped(run, out, text, '"', true));
    return run.append(out, "\"");
  }

  Status write_list(const List& list, int level) {
    if (list.items.empty()) return run.append(out, "[]");
    BN_RETURN_IF_ERROR(run.append(out, "["));
    for (size_t i = 0; i < list.items.size(); ++i) {
      BN_RETURN_IF_ERROR(separate(i, level + 1));
      BN_RETURN_IF_ERROR(write(list.items[i], level + 1));
    }
    BN_RETURN_IF_ERROR(break_line(level));
    return run.append(out, "]");
  }

  Status write_dict(const Dict& dict, int level) {
    if (dict.items.empty()) return run.append(out, "{}");
    std::vector<std::pair<Text, const Value*>> items;
    for (const auto& [key, value] : dict.items) {
      BN_ASSIGN_OR_RETURN(Text name, key_text(key));
      items.emplace_back(std::move(name), &value);
    }
    if (sort_keys) {
      BN_RETURN_IF_ERROR(run.charge(16 * items.size()));
      std::stable_sort(items.begin(), items.end(),
                       [](const auto& a, const auto& b) { return a.first.bytes() < b.first.bytes(); });
    }
    BN_RETURN_IF_ERROR(run.append(out, "{"));
    for (size_t i = 0; i < items.size(); ++i) {
      BN_RETURN_IF_ERROR(separate(i, level + 1));
      BN_RETURN_IF_ERROR(write_string(items[i].first));
      BN_RETURN_IF_ERROR(run.append(out, ": "));
      BN_RETURN_IF_ERROR(write(*items[i].second, level + 1));
    }
    BN_RETURN_IF_ERROR(break_line(level));
    return run.append(out, "}");
  }

  Result<Text> key_text(const Value& key) {
    if (key.if_text()) return to_text(run, key);
    Text out_key;
    BN_RETURN_IF_ERROR(JsonWriter({run, out_key, -1, false}).write(key, 0));
    return out_key;
  }

  Status write(const Value& value, int level) {
    BN_RETURN_IF_ERROR(run.charge(1));
    if (const Text* text = value.if_text()) return write_string(*text);
    if (const List* list = value.if_list()) return write_list(*list, level);
    if (const Dict* dict = value.if_dict()) return write_dict(*dict, level);
    if (const bool* b = value.if_bool()) return run.append(out, *b ? "true" : "false");
    if (value.is_none()) return run.append(out, "null");
    if (const double* d = value.if_double(); d && !std::isfinite(*d)) {
      return run.append(out, std::isnan(*d) ? "NaN" : *d < 0 ? "-Infinity" : "Infinity");
    }
    if (value.is_number()) return run.append(out, scalar_text(value));
    if (const Undefined* undefined = value.if_undefined()) return run.error("{} is undefined", undefined->what);
    return run.error("a {} has no JSON form", value.type_name());
  }
};

}  // namespace

Status append_json(Run& run, Text& out, const Value& value, int indent, bool sort_keys) {
  return JsonWriter{run, out, indent, sort_keys}.write(value, 0);
}

}  // namespace bitnet::jinja
