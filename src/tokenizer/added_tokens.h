#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// The tokens that are looked for in text before it is cut into pieces.
class AddedTokens {
 public:
  static constexpr size_t kMaxTextBytes = 256;  // bounds the work at one position of the text

  struct Token {
    std::string text;
    int32_t id;
    bool special;
    bool strip_left = false, strip_right = false;  // takes the white space beside it along
  };
  explicit AddedTokens(std::vector<Token> tokens = {});

  // The longest token that starts at `pos`; a special one only if it ends at or before `special_end`.
  const Token* match_at(std::string_view text, size_t pos, size_t special_end) const;
  // Whether a token starts with this byte, a special one only if `special`.
  bool may_start(char byte, bool special) const { return (starts_[uint8_t(byte)] & (special ? 3 : 1)) != 0; }
  bool has_plain() const { return has_plain_; }  // any that are not special

 private:
  struct Range {
    size_t begin = 0, end = 0;
  };
  std::vector<Token> tokens_;          // sorted by text
  std::array<Range, 256> ranges_{};    // by first byte
  std::array<uint8_t, 256> starts_{};  // 1: of a token that is not special, 2: of a special one
  bool has_plain_ = false;
};

}  // namespace bitnet
