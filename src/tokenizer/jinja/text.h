#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet::jinja {

// Where a byte of text comes from: the template, a message's role, or the content of message i.
using Origin = uint32_t;
inline constexpr Origin kTemplateOrigin = 0;
inline constexpr Origin kRoleOrigin = 1;
inline constexpr Origin kFirstContentOrigin = 2;  // + index of the message

// Bytes [begin, end) of a text come from `origin`.
struct Span {
  uint32_t begin;
  uint32_t end;
  Origin origin;
};

// A string that knows the origin of each of its bytes. Spans are sorted, disjoint and cover every byte that is not the
// template's; neighbours of one origin are merged.
class Text {
 public:
  Text() = default;
  explicit Text(std::string_view bytes, Origin origin = kTemplateOrigin) { append(bytes, origin); }

  const std::string& bytes() const { return bytes_; }
  const std::vector<Span>& spans() const { return spans_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // What the text costs in memory, for the budget.
  size_t cost_bytes() const { return bytes_.size() + spans_.size() * sizeof(Span); }

  void append(std::string_view bytes, Origin origin = kTemplateOrigin);
  void append(const Text& other) { append(other, 0, other.size()); }
  void append(const Text& other, size_t begin, size_t end);
  Text substr(size_t begin, size_t end) const;
  // Origin of the byte at `i`, by binary search.
  Origin origin_at(size_t i) const;

  // The same text with each byte replaced by f(byte).
  template <class F>
  Text map_bytes(F f) const {
    Text out = *this;
    for (char& c : out.bytes_) c = f(c);
    return out;
  }

 private:
  std::string bytes_;
  std::vector<Span> spans_;
};

// Bytes of the UTF-8 character at `i`; a byte that is no valid UTF-8 counts as one character.
size_t char_length(std::string_view s, size_t i);
// Byte offset of every character, and the size at the end.
std::vector<uint32_t> char_offsets(std::string_view s);
size_t count_chars(std::string_view s);
// Bytes of the white space character (Python's str.isspace) at `i` or that ends before `i`; 0: there is none.
size_t space_length(std::string_view s, size_t i);
size_t space_length_before(std::string_view s, size_t i);
bool is_all_space(std::string_view s);

// [begin, end) without the white space, or the characters of `chars`, at the chosen ends.
std::pair<size_t, size_t> strip_range(std::string_view s, bool left, bool right);
std::pair<size_t, size_t> strip_range(std::string_view s, bool left, bool right, std::string_view chars);

// Offset of the first `needle` at or after `from`, of the last one; npos: none. Linear in both sizes.
size_t find_text(std::string_view s, std::string_view needle, size_t from);
size_t rfind_text(std::string_view s, std::string_view needle);

// A decimal number, the whole of `s`, whatever the locale.
bool parse_double(const std::string& s, double* out);

// Case mapping of ASCII letters; other characters keep their case.
inline bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
inline bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline char to_upper(char c) { return is_lower(c) ? char(c - 'a' + 'A') : c; }
inline char to_lower(char c) { return is_upper(c) ? char(c - 'A' + 'a') : c; }

}  // namespace bitnet::jinja
