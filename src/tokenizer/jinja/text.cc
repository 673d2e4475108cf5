#include "tokenizer/jinja/text.h"

#include <algorithm>
#include <locale>
#include <sstream>

namespace bitnet::jinja {

namespace {

uint8_t byte_at(std::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }

// Of the character of `n` bytes at `i`, which is valid UTF-8.
uint32_t code_point(std::string_view s, size_t i, size_t n) {
  if (n == 1) return byte_at(s, i);
  uint32_t c = byte_at(s, i) & (0xffu >> (n + 1));
  for (size_t k = 1; k < n; ++k) c = (c << 6) | (byte_at(s, i + k) & 0x3fu);
  return c;
}

// Python's str.isspace: Unicode white space plus the ASCII separators 0x1c to 0x1f.
bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t char_length_before(std::string_view s, size_t i) {
  for (size_t n = 2; n <= 4 && n <= i; ++n) {
    if (char_length(s, i - n) == n) return n;
  }
  return 1;
}

}  // namespace

void Text::append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  const auto begin = static_cast<uint32_t>(bytes_.size());
  bytes_.append(bytes);
  const auto end = static_cast<uint32_t>(bytes_.size());
  if (origin == kTemplateOrigin) return;
  if (!spans_.empty() && spans_.back().end == begin && spans_.back().origin == origin) {
    spans_.back().end = end;
  } else {
    spans_.push_back({begin, end, origin});
  }
}

void Text::append(const Text& other, size_t begin, size_t end) {
  const std::string_view bytes = other.bytes_;
  auto span =
      std::partition_point(other.spans_.begin(), other.spans_.end(), [begin](const Span& s) { return s.end <= begin; });
  size_t at = begin;
  for (; span != other.spans_.end() && span->begin < end; ++span) {
    const size_t from = std::max<size_t>(span->begin, at);
    const size_t to = std::min<size_t>(span->end, end);
    append(bytes.substr(at, from - at));
    append(bytes.substr(from, to - from), span->origin);
    at = to;
  }
  append(bytes.substr(at, end - at));
}

Text Text::substr(size_t begin, size_t end) const {
  Text out;
  out.append(*this, begin, end);
  return out;
}

Origin Text::origin_at(size_t i) const {
  const auto span = std::partition_point(spans_.begin(), spans_.end(), [i](const Span& s) { return s.end <= i; });
  return span != spans_.end() && span->begin <= i ? span->origin : kTemplateOrigin;
}

size_t char_length(std::string_view s, size_t i) {
  const uint8_t lead = byte_at(s, i);
  const size_t n = lead < 0xc2 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 1;
  if (n > s.size() - i) return 1;
  for (size_t k = 1; k < n; ++k) {
    if ((byte_at(s, i + k) & 0xc0) != 0x80) return 1;
  }
  const uint32_t c = code_point(s, i, n);
  const bool valid = n < 3 || (n == 3 ? c >= 0x800 && (c < 0xd800 || c > 0xdfff) : c >= 0x10000 && c <= 0x10ffff);
  return valid ? n : 1;
}

std::vector<uint32_t> char_offsets(std::string_view s) {
  std::vector<uint32_t> offsets;
  for (size_t i = 0; i < s.size(); i += char_length(s, i)) offsets.push_back(static_cast<uint32_t>(i));
  offsets.push_back(static_cast<uint32_t>(s.size()));
  return offsets;
}

size_t count_chars(std::string_view s) {
  size_t n = 0;
  for (size_t i = 0; i < s.size(); i += char_length(s, i)) ++n;
  return n;
}

size_t space_length(std::string_view s, size_t i) {
  if (i >= s.size()) return 0;
  const size_t n = char_length(s, i);
  if (n == 1 && byte_at(s, i) >= 0x80) return 0;
  return is_space(code_point(s, i, n)) ? n : 0;
}

size_t space_length_before(std::string_view s, size_t i) {
  if (i == 0) return 0;
  const size_t n = char_length_before(s, i);
  return space_length(s.substr(0, i), i - n) == n ? n : 0;
}

bool is_all_space(std::string_view s) { return strip_range(s, true, false).first == s.size(); }

std::pair<size_t, size_t> strip_range(std::string_view s, bool left, bool right) {
  size_t begin = 0;
  size_t end = s.size();
  for (size_t n = 0; left && (n = space_length(s, begin)) != 0;) begin += n;
  for (size_t n = 0; right && end > begin && (n = space_length_before(s, end)) != 0;) end -= n;
  return {begin, std::max(begin, end)};
}

std::pair<size_t, size_t> strip_range(std::string_view s, bool left, bool right, std::string_view chars) {
  const auto is_stripped = [&](size_t i, size_t n) {
    for (size_t k = 0; k < chars.size(); k += char_length(chars, k)) {
      if (chars.substr(k, char_length(chars, k)) == s.substr(i, n)) return true;
    }
    return false;
  };
  size_t begin = 0;
  size_t end = s.size();
  while (left && begin < end && is_stripped(begin, char_length(s, begin))) begin += char_length(s, begin);
  while (right && end > begin) {
    const size_t n = char_length_before(s, end);
    if (!is_stripped(end - n, n)) break;
    end -= n;
  }
  return {begin, std::max(begin, end)};
}

namespace {

// Knuth, Morris, Pratt over any two sequences of bytes; `needle` is not empty.
template <class It>
size_t find_linear(It s, size_t n, It needle, size_t m) {
  std::vector<uint32_t> border(m, 0);  // longest proper prefix that ends needle[0..i]
  for (size_t i = 1, k = 0; i < m; ++i) {
    while (k > 0 && needle[i] != needle[k]) k = border[k - 1];
    if (needle[i] == needle[k]) ++k;
    border[i] = static_cast<uint32_t>(k);
  }
  for (size_t i = 0, k = 0; i < n; ++i) {
    while (k > 0 && s[i] != needle[k]) k = border[k - 1];
    if (s[i] == needle[k]) ++k;
    if (k == m) return i + 1 - m;
  }
  return std::string_view::npos;
}

// Up to this size the library's search, whose time may be the product of the sizes, is the faster one.
constexpr size_t kShortNeedle = 16;

}  // namespace

size_t find_text(std::string_view s, std::string_view needle, size_t from) {
  if (needle.size() <= kShortNeedle || from > s.size()) return s.find(needle, from);
  const size_t at = find_linear(s.begin() + from, s.size() - from, needle.begin(), needle.size());
  return at == std::string_view::npos ? at : at + from;
}

size_t rfind_text(std::string_view s, std::string_view needle) {
  if (needle.size() <= kShortNeedle) return s.rfind(needle);
  const size_t at = find_linear(s.rbegin(), s.size(), needle.rbegin(), needle.size());
  return at == std::string_view::npos ? at : s.size() - needle.size() - at;
}

bool parse_double(const std::string& s, double* out) {
  std::istringstream in(s);
  in.imbue(std::locale::classic());
  return !s.empty() && (in >> std::noskipws >> *out) && in.peek() == std::istringstream::traits_type::eof();
}

}  // namespace bitnet::jinja
