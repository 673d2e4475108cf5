#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// \p{L}, \p{M}, \p{N}, \p{P}, \p{S} and \s (the property White_Space); everything else, unassigned code points and
// bytes that are not UTF-8 included, is kOther.
enum class CharClass : uint8_t { kOther, kLetter, kMark, kNumber, kPunctuation, kSymbol, kSpace };

// unicode_tables.cc
extern const uint32_t kClassRuns[];
extern const size_t kClassRunCount;

// One character of a text: a code point, or one byte that starts no well-formed UTF-8 sequence.
struct Utf8Char {
  static constexpr uint32_t kInvalid = 0xffffffff;
  uint32_t code_point;
  uint32_t size_bytes;
};

// The character at `pos`, which lies before `end`; `end` cuts like the end of the text.
inline Utf8Char utf8_at(const char* text, size_t pos, size_t end) {
  const auto byte = [&](size_t i) { return uint32_t(uint8_t(text[pos + i])); };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const uint32_t b0 = byte(0);
  const size_t left = end - pos;
  if (b0 < 0x80) return {b0, 1};
  if (b0 >= 0xc2 && b0 < 0xe0 && left >= 2 && continues(1)) return {(b0 & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (b0 >= 0xe0 && b0 < 0xf0 && left >= 3 && continues(1) && continues(2)) {
    const uint32_t c = (b0 & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    if (c >= 0x800 && (c < 0xd800 || c > 0xdfff)) return {c, 3};
  }
  if (b0 >= 0xf0 && b0 < 0xf5 && left >= 4 && continues(1) && continues(2) && continues(3)) {
    const uint32_t c = (b0 & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
    if (c >= 0x10000 && c <= 0x10ffff) return {c, 4};
  }
  return {Utf8Char::kInvalid, 1};
}

// Bytes at the front of `text`, which starts with no whole character, that some well-formed sequence starts with; 0 if
// there is no such sequence.
size_t utf8_prefix_size(std::string_view text);

void append_utf8(std::string& out, uint32_t code_point);

// Class of every code point by two look-ups. Built once, from the runs.
class CharClasses {
 public:
  static const CharClasses& get();
  CharClass operator[](uint32_t code_point) const {
    if (code_point > 0x10ffff) return CharClass::kOther;
    return pages_[page_of_[code_point >> 8]][code_point & 0xff];
  }

 private:
  CharClasses();
  using Page = std::array<CharClass, 256>;
  std::array<uint16_t, 0x1100> page_of_;
  std::vector<Page> pages_;
};

// The printable alphabet in which byte-level vocabularies write bytes: 0x21-0x7e, 0xa1-0xac and 0xae-0xff stand for
// themselves as code points, the other 68 bytes for U+0100 on, in order.
uint32_t alphabet_from_byte(uint8_t byte);
// False, with `bytes` unspecified, when the text holds a character outside the alphabet.
bool bytes_from_alphabet(std::string_view text, std::string& bytes);
std::string alphabet_from_bytes(std::string_view bytes);

}  // namespace bitnet
