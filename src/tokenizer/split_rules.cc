#include "tokenizer/split_rules.h"

#include "tokenizer/deepseek_letters.h"
#include "tokenizer/unicode.h"

#include <algorithm>

namespace bitnet {
namespace {

// Shorthand over one stretch of text; positions at or past the end read as a character that nothing matches.
class Scanner {
 public:
  Scanner(const char* text, size_t end) : text_(text), end_(end), classes_(CharClasses::get()) {}

  size_t end() const { return end_; }
  Utf8Char at(size_t pos) const { return utf8_at(text_, pos, end_); }
  CharClass class_at(size_t pos) const { return classes_[at(pos).code_point]; }
  bool is(size_t pos, CharClass c) const { return pos < end_ && class_at(pos) == c; }
  bool is_byte(size_t pos, char c) const { return pos < end_ && text_[pos] == c; }
  bool is_line_break(size_t pos) const { return is_byte(pos, '\r') || is_byte(pos, '\n'); }
  size_t after(size_t pos) const { return pos + at(pos).size_bytes; }

  // First position from `pos` on whose character does not satisfy accept(code_point, class).
  template <class Accept>
  size_t skip(size_t pos, Accept accept) const {
    while (pos < end_) {
      const Utf8Char c = at(pos);
      if (!accept(c.code_point, classes_[c.code_point])) break;
      pos += c.size_bytes;
    }
    return pos;
  }
  size_t skip(size_t pos, CharClass wanted) const {
    return skip(pos, [wanted](uint32_t, CharClass c) { return c == wanted; });
  }

 private:
  const char* text_;
  size_t end_;
  const CharClasses& classes_;
};

// Neither \s, \p{L} nor \p{N}.
bool is_symbol(CharClass c) { return c != CharClass::kSpace && c != CharClass::kLetter && c != CharClass::kNumber; }

size_t skip_symbols(const Scanner& s, size_t pos) {
  return s.skip(pos, [](uint32_t, CharClass c) { return is_symbol(c); });
}

// 's 't 're 've 'm 'll 'd behind the apostrophe at `pos`; returns `pos` where there is none. Ignoring case, U+017F
// folds to s.
size_t skip_contraction(const Scanner& s, size_t pos, bool ignore_case) {
  const auto letter = [&](size_t i) -> uint32_t {
    if (i >= s.end()) return 0;
    const uint32_t c = s.at(i).code_point;
    if (!ignore_case) return c;
    if (c == 0x17f) return 's';
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
  };
  const uint32_t first = letter(pos + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return s.after(pos + 1);
  const uint32_t second = first == 'r' || first == 'v' || first == 'l' ? letter(pos + 2) : 0;
  if ((first == 'l' && second == 'l') || (first != 'l' && second == 'e')) return pos + 3;
  return pos;
}

// \s+(?!\S)|\s+ at a space: the run without its last character if something follows it.
size_t skip_space(const Scanner& s, size_t pos) {
  size_t last = pos, next = pos;
  while (s.is(next, CharClass::kSpace)) {
    last = next;
    next = s.after(next);
  }
  return next == s.end() || last == pos ? next : last;
}

size_t gpt2(const Scanner& s, size_t pos) {
  if (s.is_byte(pos, '\'')) {
    const size_t end = skip_contraction(s, pos, false);
    if (end != pos) return end;
  }
  const size_t body = s.is_byte(pos, ' ') && pos + 1 < s.end() ? pos + 1 : pos;
  const CharClass c = s.class_at(body);
  if (c == CharClass::kLetter || c == CharClass::kNumber) return s.skip(body, c);
  if (c != CharClass::kSpace) return skip_symbols(s, body);
  return skip_space(s, pos);
}

size_t llama3(const Scanner& s, size_t pos, int max_digits) {
  if (s.is_byte(pos, '\'')) {
    const size_t end = skip_contraction(s, pos, true);
    if (end != pos) return end;
  }
  const Utf8Char first = s.at(pos);
  const CharClass c = s.class_at(pos);
  const size_t second = pos + first.size_bytes;
  if (c == CharClass::kLetter) return s.skip(second, CharClass::kLetter);
  if (c == CharClass::kNumber) {
    size_t end = second;
    for (int n = 1; n < max_digits && s.is(end, CharClass::kNumber); ++n) end = s.after(end);
    return end;
  }
  if (!s.is_line_break(pos) && s.is(second, CharClass::kLetter)) return s.skip(second, CharClass::kLetter);
  const size_t body = first.code_point == ' ' ? second : pos;
  if (body < s.end() && is_symbol(s.class_at(body))) {
    size_t end = skip_symbols(s, body);
    while (s.is_line_break(end)) ++end;
    return end;
  }
  size_t after_break = pos;
  const size_t end = s.skip(pos, CharClass::kSpace);
  for (size_t i = end; i > pos && after_break == pos; --i) {
    if (s.is_line_break(i - 1)) after_break = i;
  }
  return after_break != pos ? after_break : skip_space(s, pos);
}

// Pieces of a rule that leaves gaps. match(pos) is the end of the match that starts there, or pos; it must tell a
// mismatch in constant time.
template <class Match>
size_t match_or_gap(const Scanner& s, size_t pos, Match match) {
  const size_t matched = match(pos);
  if (matched != pos) return matched;
  do {
    pos = s.after(pos);
  } while (pos < s.end() && match(pos) == pos);
  return pos;
}

// Runs of the accepted characters, with one space character in front if `spaced`.
template <class Accept>
size_t runs(const Scanner& s, size_t pos, bool spaced, Accept accept) {
  return match_or_gap(s, pos, [&](size_t start) {
    const size_t body = spaced && s.is(start, CharClass::kSpace) ? s.after(start) : start;
    const size_t end = s.skip(body, accept);
    return end == body ? s.skip(start, accept) : end;  // some spaces are accepted themselves
  });
}

size_t three_digits(const Scanner& s, size_t pos) {
  const auto is_digit = [&](size_t i) { return i < s.end() && s.at(i).code_point - '0' < 10; };
  return match_or_gap(s, pos, [&](size_t start) {
    return is_digit(start) && is_digit(start + 1) && is_digit(start + 2) ? start + 3 : start;
  });
}

size_t trailing_space(const Scanner& s, size_t pos) {
  size_t run = pos;
  while (run < s.end()) {
    const size_t run_end = s.skip(run, CharClass::kSpace);
    if (run_end == s.end()) return run == pos ? s.end() : run;
    run = s.after(run_end);
  }
  return s.end();
}

bool is_ascii_symbol(uint32_t c, std::string_view symbols) {
  return c < 0x80 && symbols.find(char(c)) != std::string_view::npos;
}

bool is_deepseek_letter(uint32_t c) {
  const auto* range =
      std::lower_bound(std::begin(kDeepseekLetters), std::end(kDeepseekLetters), c,
                       [](const CodePointRange& r, uint32_t code_point) { return r.last < code_point; });
  return range != std::end(kDeepseekLetters) && range->first <= c;
}

}  // namespace

size_t piece_end(SplitRule rule, const char* text, size_t pos, size_t end) {
  const Scanner s(text, end);
  const auto in = [](uint32_t c, uint32_t first, uint32_t last) { return c >= first && c <= last; };
  switch (rule) {
    case SplitRule::kGpt2: return gpt2(s, pos);
    case SplitRule::kLlama3: return llama3(s, pos, 3);
    case SplitRule::kQwen2: return llama3(s, pos, 1);
    case SplitRule::kNumber:
      return match_or_gap(s, pos, [&](size_t i) { return s.is(i, CharClass::kNumber) ? s.after(i) : i; });
    case SplitRule::kNumbers: return runs(s, pos, false, [](uint32_t, CharClass c) { return c == CharClass::kNumber; });
    case SplitRule::kThreeDigits: return three_digits(s, pos);
    case SplitRule::kPunctuation:
      return runs(s, pos, false, [](uint32_t c, CharClass k) {
        return k == CharClass::kPunctuation || is_ascii_symbol(c, "$+<=>^~|`");
      });
    case SplitRule::kPunctuationNoTick:
      return runs(s, pos, false, [](uint32_t c, CharClass k) {
        return k == CharClass::kPunctuation || is_ascii_symbol(c, "$+<=>^~|");
      });
    case SplitRule::kLineBreak: return match_or_gap(s, pos, [&](size_t i) { return i + (s.is_line_break(i) ? 1 : 0); });
    case SplitRule::kSpacedLetters:
      return runs(s, pos, true, [](uint32_t, CharClass c) { return c == CharClass::kLetter; });
    case SplitRule::kSpacedPunctuation:
      return runs(s, pos, true, [](uint32_t, CharClass c) { return c == CharClass::kPunctuation; });
    case SplitRule::kEastAsian:
      return runs(s, pos, false, [&](uint32_t c, CharClass) { return in(c, 0x800, 0x9fa5) || in(c, 0xac00, 0xd7ff); });
    case SplitRule::kDeepseekLetters:
      return runs(s, pos, true, [](uint32_t c, CharClass) { return is_deepseek_letter(c); });
    case SplitRule::kDeepseekSymbols:
      return runs(s, pos, true, [&](uint32_t c, CharClass) {
        return in(c, '!', '/') || in(c, ':', '~') || in(c, 0xff01, 0xff0f) || in(c, 0xff1a, 0xff5e) ||
               in(c, 0x2018, 0x201f) || in(c, 0x3000, 0x3002);
      });
    case SplitRule::kTrailingSpace: return trailing_space(s, pos);
  }
  return end;
}

}  // namespace bitnet
