#include "tokenizer/added_tokens.h"

#include <algorithm>

namespace bitnet {

AddedTokens::AddedTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const Token& a, const Token& b) { return a.text < b.text; });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    Range& range = ranges_[uint8_t(tokens_[i].text[0])];
    if (range.begin == range.end) range.begin = i;
    range.end = i + 1;
    starts_[uint8_t(tokens_[i].text[0])] |= tokens_[i].special ? 2 : 1;
    has_plain_ = has_plain_ || !tokens_[i].special;
  }
}

const AddedTokens::Token* AddedTokens::match_at(std::string_view text, size_t pos, size_t special_end) const {
  Range range = ranges_[uint8_t(text[pos])];
  const Token* longest = nullptr;
  // Narrows the range to the tokens that share one more byte with the text; the shortest comes first.
  for (size_t length = 1; range.begin != range.end; ++length) {
    const Token& token = tokens_[range.begin];
    if (token.text.size() == length && (!token.special || pos + length <= special_end)) longest = &token;
    if (pos + length >= text.size()) break;
    const char byte = text[pos + length];
    const auto first = tokens_.begin() + ptrdiff_t(range.begin), last = tokens_.begin() + ptrdiff_t(range.end);
    const auto byte_of = [length](const Token& t) {
      return t.text.size() > length ? int(uint8_t(t.text[length])) : -1;
    };
    const auto begin =
        std::partition_point(first, last, [&](const Token& t) { return byte_of(t) < int(uint8_t(byte)); });
    const auto end =
        std::partition_point(begin, last, [&](const Token& t) { return byte_of(t) == int(uint8_t(byte)); });
    range = {size_t(begin - tokens_.begin()), size_t(end - tokens_.begin())};
  }
  return longest;
}

}  // namespace bitnet
