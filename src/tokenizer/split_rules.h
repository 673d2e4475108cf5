#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bitnet {

// One step of a pre-tokenizer: a regular expression of a published tokenizer as a hand-written scanner. Each cuts a
// stretch of text into its matches and the gaps between them; both are pieces. All are linear and none recurses.
enum class SplitRule : uint8_t {
  kGpt2,               // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kLlama3,             // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
                       //   | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kQwen2,              // the same with \p{N} for \p{N}{1,3}
  kNumber,             // \p{N}
  kNumbers,            // \p{N}+
  kThreeDigits,        // [0-9][0-9][0-9]
  kPunctuation,        // [\p{P}$+<=>^~|`]+
  kPunctuationNoTick,  // [\p{P}$+<=>^~|]+
  kLineBreak,          // [\r\n]
  kSpacedLetters,      // \s?\p{L}+
  kSpacedPunctuation,  // \s?\p{P}+
  kEastAsian,          // [一-龥ࠀ-一가-퟿]+
  kDeepseekLetters,    // \s?[A-Za-zµÀ-Ö...]+: the cased letters of an older Unicode
  kDeepseekSymbols,    // \s?[!-/:-~！-／：-～‘-‟　-。]+
  kTrailingSpace,      // \s+$
};

// End of the piece that starts at `pos` of a stretch that ends at `end`; pos < end.
size_t piece_end(SplitRule rule, const char* text, size_t pos, size_t end);

}  // namespace bitnet
