#include "format/text.h"

#include <fmt/format.h>
#include <cstddef>
#include <cstdint>

namespace bitnet {
namespace {

constexpr size_t kMaxQuoted_bytes = 80;

// Bytes of the well-formed UTF-8 sequence at the start of `text`, 0 when there is none (Unicode 15, table 3-7).
size_t utf8_sequence_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto in = [](uint8_t value, uint8_t low, uint8_t high) { return value >= low && value <= high; };
  const uint8_t lead = byte(0);
  if (text.empty()) return 0;
  if (lead < 0x80) return 1;
  if (in(lead, 0xc2, 0xdf)) return in(byte(1), 0x80, 0xbf) ? 2 : 0;
  if (in(lead, 0xe0, 0xef)) {
    const uint8_t low = lead == 0xe0 ? 0xa0 : 0x80, high = lead == 0xed ? 0x9f : 0xbf;
    return in(byte(1), low, high) && in(byte(2), 0x80, 0xbf) ? 3 : 0;
  }
  if (in(lead, 0xf0, 0xf4)) {
    const uint8_t low = lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xf4 ? 0x8f : 0xbf;
    return in(byte(1), low, high) && in(byte(2), 0x80, 0xbf) && in(byte(3), 0x80, 0xbf) ? 4 : 0;
  }
  return 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t n = utf8_sequence_bytes(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

std::string quote_name(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    if (i >= kMaxQuoted_bytes) {
      return out + fmt::format("...\" ({} bytes)", text.size());
    }
    const size_t n = utf8_sequence_bytes(text.substr(i));
    const auto byte = static_cast<uint8_t>(text[i]);
    // C1 controls (U+0080 to U+009F, 0xc2 0x80..0x9f) drive some terminals too.
    const bool c1 = n == 2 && byte == 0xc2 && static_cast<uint8_t>(text[i + 1]) < 0xa0;
    if (n == 0 || byte < 0x20 || byte == 0x7f || c1) {
      for (size_t k = 0; k < (n == 0 ? 1 : n); ++k) out += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[i + k]));
    } else {
      out += text.substr(i, n);
    }
    i += n == 0 ? 1 : n;
  }
  return out + '"';
}

}  // namespace bitnet
