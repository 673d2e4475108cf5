#include "format/json_events.h"

#include "format/text.h"

#include <cstddef>
#include <exception>
#include <iterator>
#include <new>
#include <utility>

namespace bitnet {
namespace {

using Kind = JsonEvent::Kind;

bool is_whitespace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// Lets the callbacks know how far the lexer has read, which nlohmann's SAX interface does not tell.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* position, const char** furthest) : position_(position), furthest_(furthest) {}
  reference operator*() const { return *position_; }
  CountingIterator& operator++() {
    *furthest_ = ++position_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return position_ == other.position_; }
  bool operator!=(const CountingIterator& other) const { return position_ != other.position_; }

 private:
  const char* position_;
  const char** furthest_;
};

// What nlohmann says after "... line 1, column 5: ".
std::string problem_of(const nlohmann::json::exception& error) {
  std::string_view text = error.what();
  if (const size_t id = text.find("] "); id != std::string_view::npos) text.remove_prefix(id + 2);
  if (text.starts_with("parse error")) {
    if (const size_t colon = text.find(": "); colon != std::string_view::npos) text.remove_prefix(colon + 2);
  }
  const std::string shown = quote_name(text);
  return "not valid JSON: " + (text.size() + 2 == shown.size() ? std::string(text) : shown);
}

// Members have the names that nlohmann's SAX interface asks for.
class Walker {
 public:
  Walker(const JsonLimits& limits, const JsonSink& sink) : limits_(limits), sink_(sink) {}
  const std::string& problem() const { return problem_; }

  bool null() { return pass({.kind = Kind::kNull}); }
  bool boolean(bool value) { return pass({.kind = Kind::kBool, .boolean = value}); }
  bool number_integer(int64_t value) { return pass({.kind = Kind::kInt, .integer = value}); }
  bool number_unsigned(uint64_t value) { return pass({.kind = Kind::kUint, .unsigned_integer = value}); }
  bool number_float(double value, const std::string&) { return pass({.kind = Kind::kFloat, .number = value}); }
  bool string(std::string& value) { return pass({.kind = Kind::kString, .text = &value}); }
  bool binary(nlohmann::json::binary_t&) { return false; }  // not in JSON text
  bool key(std::string& value) { return pass({.kind = Kind::kKey, .text = &value}); }
  bool start_object(size_t) { return descend() && pass({.kind = Kind::kBeginObject}); }
  bool end_object() { return ascend() && pass({.kind = Kind::kEndObject}); }
  bool start_array(size_t) { return descend() && pass({.kind = Kind::kBeginArray}); }
  bool end_array() { return ascend() && pass({.kind = Kind::kEndArray}); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
    problem_ = problem_of(error);
    return false;
  }

 private:
  bool pass(const JsonEvent& event) {
    problem_ = sink_(event);
    return problem_.empty();
  }
  bool descend() {
    if (++depth_ <= limits_.max_depth) return true;
    problem_ = fmt::format("is nested deeper than {} levels", limits_.max_depth);
    return false;
  }
  bool ascend() {
    --depth_;
    return true;
  }

  const JsonLimits& limits_;
  const JsonSink& sink_;
  size_t depth_ = 0;
  std::string problem_;
};

}  // namespace

std::string json_event_name(const JsonEvent& event) {
  switch (event.kind) {
    case Kind::kNull: return "null";
    case Kind::kBool: return event.boolean ? "true" : "false";
    case Kind::kInt: return fmt::format("the number {}", event.integer);
    case Kind::kUint: return fmt::format("the number {}", event.unsigned_integer);
    case Kind::kFloat: return fmt::format("the number {}", event.number);
    case Kind::kString: return fmt::format("the string {}", quote_name(*event.text));
    case Kind::kKey: return fmt::format("the key {}", quote_name(*event.text));
    case Kind::kBeginObject: return "an object";
    case Kind::kBeginArray: return "an array";
    case Kind::kEndObject: return "the end of an object";
    case Kind::kEndArray: return "the end of an array";
  }
  return "a value";
}

Status read_json(std::string_view text, const std::string& name, const JsonLimits& limits, const JsonSink& sink) {
  if (text.size() > limits.max_bytes) {
    return invalid_input("{}: has {} bytes of JSON, more than the limit of {}", name, text.size(), limits.max_bytes);
  }
  if (text.starts_with("\xef\xbb\xbf")) {
    return invalid_input("{}: byte 0: starts with a byte order mark, which JSON does not allow", name);
  }
  const char* furthest = text.data();
  // JSON has no raw NUL anywhere, and nlohmann takes one for the end of the text.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return invalid_input("{}: byte {}: has a NUL byte, which JSON does not allow", name, nul);
  }
  Walker walker(limits, sink);
  try {
    // The lexer keeps what it skips, so padding is taken off first.
    const char* last = text.data() + text.size();
    while (furthest != last && is_whitespace(*furthest)) ++furthest;
    while (last != furthest && is_whitespace(last[-1])) --last;
    const CountingIterator begin(furthest, &furthest), end(last, &furthest);
    if (nlohmann::json::sax_parse(begin, end, &walker)) return ok();
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kResource, "{}: not enough memory to read {} bytes of JSON", name, text.size());
  } catch (const std::exception& error) {
    return invalid_input("{}: byte {}: not valid JSON: {}", name, furthest - text.data(), quote_name(error.what()));
  }
  return invalid_input("{}: byte {}: {}", name, furthest - text.data(), walker.problem());
}

}  // namespace bitnet
