// Helpers of this room's tests.
#include "tokenizer/test_vocabulary.h"

#include "base/rng.h"
#include "tokenizer/unicode.h"

#include <fmt/format.h>

namespace bitnet::testing_support {

Vocabulary byte_level_vocabulary(const std::string& pre, const std::vector<std::pair<std::string, std::string>>& merges,
                                 const std::vector<std::string>& special,
                                 const std::vector<std::string>& user_defined) {
  Vocabulary v;
  v.pre = pre;
  for (int byte = 0; byte < 256; ++byte) v.tokens.push_back(alphabet_from_bytes(std::string(1, char(byte))));
  for (const auto& [left, right] : merges) {
    v.merges.emplace_back(alphabet_from_bytes(left), alphabet_from_bytes(right));
    v.tokens.push_back(v.merges.back().first + v.merges.back().second);
  }
  v.types.assign(v.tokens.size(), TokenType::kNormal);
  for (const std::string& text : special) {
    v.tokens.push_back(text);
    v.types.push_back(TokenType::kControl);
  }
  for (const std::string& text : user_defined) {
    v.tokens.push_back(text);
    v.types.push_back(TokenType::kUserDefined);
  }
  return v;
}

Vocabulary sentencepiece_vocabulary(const std::vector<std::pair<std::string, float>>& pieces, bool bytes) {
  Vocabulary v;
  v.kind = VocabularyKind::kSentencePieceBpe;
  v.tokens = {"<unk>", "<s>", "</s>"};
  v.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl};
  for (int byte = 0; bytes && byte < 256; ++byte) {
    v.tokens.push_back(fmt::format("<0x{:02X}>", byte));
    v.types.push_back(TokenType::kByte);
  }
  v.scores.assign(v.tokens.size(), 0);
  for (const auto& [piece, score] : pieces) {
    v.tokens.push_back(piece);
    v.types.push_back(TokenType::kNormal);
    v.scores.push_back(score);
  }
  v.unk_id = 0;
  v.bos_id = 1;
  v.eos_id = 2;
  v.add_space_prefix = true;
  v.add_bos = true;
  return v;
}

Tokenizer must_make(Vocabulary vocabulary) {
  auto made = make_tokenizer(std::move(vocabulary), "test");
  if (made) return *made;
  ADD_FAILURE() << made.error().message;
  return *make_tokenizer(byte_level_vocabulary("gpt-2", {}), "empty");
}

std::vector<int32_t> must_encode(const Tokenizer& tokenizer, std::string_view text, bool parse_special, bool add_bos) {
  const auto ids = tokenizer.encode(text, {add_bos, parse_special});
  if (ids) return *ids;
  ADD_FAILURE() << ids.error().message;
  return {};
}

std::string must_decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool show_special) {
  const auto text = tokenizer.decode(ids, show_special);
  if (text) return *text;
  ADD_FAILURE() << text.error().message;
  return {};
}

std::string random_text(uint64_t i) {
  static constexpr std::string_view kAscii = "'\"sStTrReEvVmMlLdDaZ 0129 .,!?-_$+<=>^~|`(){}[]#@&*/\\:;%\n\r\t";
  static constexpr std::string_view kWords[] = {"the",        " a",           " Hello",  "'ll",    "'S",   "I've",
                                                "re",         "  ",           "\r\n",    "\n\n ",  "2024", "3.14",
                                                "na\u00efve", "\u4f60\u597d", "e\u0301", "'\u017f"};
  // Ranges that hold no unassigned code point: Latin, combining marks, Cyrillic, Arabic digits, Devanagari, Thai,
  // general punctuation, arrows, CJK punctuation and ideographs, Hangul, full width, digits and emoji beyond U+FFFF.
  static constexpr std::pair<uint32_t, uint32_t> kRanges[] = {
      {0xa0, 0x24f},    {0x300, 0x36f},     {0x400, 0x481},     {0x660, 0x669},    {0x904, 0x939},   {0xe01, 0xe3a},
      {0x2000, 0x2027}, {0x202a, 0x2064},   {0x2190, 0x21ff},   {0x3001, 0x301f},  {0x4e00, 0x9fa5}, {0xac00, 0xd7a3},
      {0xff01, 0xff5e}, {0x1d7ce, 0x1d7ff}, {0x1f300, 0x1f5ff}, {0x20000, 0x2a6d6}};
  const CounterRng rng(i);
  uint64_t counter = 0;
  const auto below = [&](size_t n) { return size_t(rng.bits(counter++) % n); };
  std::string text;
  for (size_t n = 1 + below(40); n > 0; --n) {
    const size_t kind = below(8);
    if (kind < 3) {
      text += kAscii[below(kAscii.size())];
    } else if (kind < 5) {
      text += kWords[below(std::size(kWords))];
    } else if (kind == 5) {
      const char repeated = kAscii[below(kAscii.size())];
      text.append(1 + below(9), repeated);
    } else {
      const auto& [first, last] = kRanges[below(std::size(kRanges))];
      append_utf8(text, first + uint32_t(below(last - first + 1)));
    }
  }
  return text;
}

std::string shared_file(const std::string& name) {
  const std::string path = BITNET_SOURCE_DIR "/../shared/" + name;
  return std::filesystem::exists(path) ? path : std::string();
}

}  // namespace bitnet::testing_support
