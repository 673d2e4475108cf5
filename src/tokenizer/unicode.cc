#include "tokenizer/unicode.h"

#include <map>

namespace bitnet {

size_t utf8_prefix_size(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  const uint8_t lead = byte(0);
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // The second byte also rules out overlong forms, surrogates and what lies above U+10FFFF.
  const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  size_t n = 1;
  if (byte(1) >= low && byte(1) <= high) {
    for (n = 2; n < size && (byte(n) & 0xc0) == 0x80; ++n) {
    }
  }
  return n;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += {char(0xc0 | c >> 6), char(0x80 | (c & 0x3f))};
  } else if (c < 0x10000) {
    out += {char(0xe0 | c >> 12), char(0x80 | (c >> 6 & 0x3f)), char(0x80 | (c & 0x3f))};
  } else {
    out += {char(0xf0 | c >> 18), char(0x80 | (c >> 12 & 0x3f)), char(0x80 | (c >> 6 & 0x3f)), char(0x80 | (c & 0x3f))};
  }
}

const CharClasses& CharClasses::get() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  std::map<Page, uint16_t> known;
  size_t run = 0;
  for (uint32_t page_number = 0; page_number < page_of_.size(); ++page_number) {
    Page page;
    for (uint32_t i = 0; i < page.size(); ++i) {
      const uint32_t code_point = page_number << 8 | i;
      while (run + 1 < kClassRunCount && kClassRuns[run + 1] >> 3 <= code_point) ++run;
      page[i] = CharClass(kClassRuns[run] & 7);
    }
    const auto [it, is_new] = known.try_emplace(page, uint16_t(pages_.size()));
    if (is_new) pages_.push_back(page);
    page_of_[page_number] = it->second;
  }
}

namespace {

struct Alphabet {
  std::array<uint32_t, 256> code_points;
  std::array<int16_t, 0x180> bytes;  // -1: not in the alphabet

  Alphabet() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
      code_points[byte] = printable ? byte : next++;
      bytes[code_points[byte]] = int16_t(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

uint32_t alphabet_from_byte(uint8_t byte) { return alphabet().code_points[byte]; }

bool bytes_from_alphabet(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = utf8_at(text.data(), pos, text.size());
    if (c.code_point >= alphabet().bytes.size() || alphabet().bytes[c.code_point] < 0) return false;
    bytes += char(alphabet().bytes[c.code_point]);
    pos += c.size_bytes;
  }
  return true;
}

std::string alphabet_from_bytes(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, alphabet_from_byte(uint8_t(byte)));
  return text;
}

}  // namespace bitnet
