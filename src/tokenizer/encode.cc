// Text to token ids: added tokens are cut out first, the text between them is cut into pieces, each piece is merged.
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <algorithm>

namespace bitnet {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

bool is_space(std::string_view text, size_t pos) {
  return CharClasses::get()[utf8_at(text.data(), pos, text.size()).code_point] == CharClass::kSpace;
}

size_t skip_space(std::string_view text, size_t pos) {
  while (pos < text.size() && is_space(text, pos)) pos += utf8_at(text.data(), pos, text.size()).size_bytes;
  return pos;
}

// Start of the white space that ends at `pos`, not before `begin`.
size_t skip_space_back(std::string_view text, size_t begin, size_t pos) {
  while (pos > begin) {
    size_t start = pos - 1;
    while (start > begin && pos - start < 4 && (uint8_t(text[start]) & 0xc0) == 0x80) --start;
    if (!is_space(text, start)) break;
    pos = start;
  }
  return pos;
}

// SentencePiece's form of a text: U+2581 for each space, and one in front if `prefix`.
void write_space_marks(std::string_view text, bool prefix, std::string& out) {
  out.clear();
  if (prefix) out += kSpaceMark;
  for (size_t pos = 0; pos < text.size();) {
    const size_t space = std::min(text.find(' ', pos), text.size());
    out += text.substr(pos, space - pos);
    if (space < text.size()) out += kSpaceMark;
    pos = space + 1;
  }
}

// Cuts in front of every run of space marks; false from fn stops.
template <class Fn>
void for_each_word(std::string_view words, Fn fn) {
  for (size_t begin = 0; begin < words.size();) {
    size_t end = begin;
    while (words.substr(end, kSpaceMark.size()) == kSpaceMark) end += kSpaceMark.size();
    end = std::min(words.find(kSpaceMark, end), words.size());
    if (!fn(words.substr(begin, end - begin))) return;
    begin = end;
  }
}

Error run_too_long(const std::string& name, size_t size_bytes) {
  return invalid_argument("{}: the text holds a run of {} bytes without a word boundary; at most {} can be encoded",
                          name, size_bytes, BpeModel::kMaxPieceBytes);
}

}  // namespace

Status TokenizerImpl::encode(std::string_view text, std::span<const Span> special, std::vector<int32_t>& ids) const {
  if (text.size() > kMaxTextBytes) {
    return invalid_argument("{}: the text has {} bytes; at most {} can be encoded at once", name, text.size(),
                            kMaxTextBytes);
  }
  BpeModel::Scratch scratch;
  std::string words;
  size_t plain = 0, next_special = 0;
  const bool look = added_tokens.has_plain() || !special.empty();
  for (size_t pos = look ? 0 : text.size(); pos < text.size();) {
    while (next_special < special.size() && special[next_special].end <= pos) ++next_special;
    const bool inside = next_special < special.size() && special[next_special].begin <= pos;
    const size_t special_end = inside ? special[next_special].end : pos;
    const auto* token =
        added_tokens.may_start(text[pos], inside) ? added_tokens.match_at(text, pos, special_end) : nullptr;
    if (!token) {
      ++pos;
      continue;
    }
    const size_t plain_end = token->strip_left ? skip_space_back(text, plain, pos) : pos;
    BN_RETURN_IF_ERROR(encode_plain(text.substr(plain, plain_end - plain), scratch, words, ids));
    ids.push_back(token->id);
    pos += token->text.size();
    if (token->strip_right) pos = skip_space(text, pos);
    plain = pos;
  }
  return encode_plain(text.substr(plain), scratch, words, ids);
}

Status TokenizerImpl::encode_plain(std::string_view text, BpeModel::Scratch& scratch, std::string& words,
                                   std::vector<int32_t>& ids) const {
  if (text.empty()) return ok();
  size_t too_long = 0;
  const auto encode_piece = [&](std::string_view piece) {
    if (piece.size() > BpeModel::kMaxPieceBytes) {
      too_long = piece.size();
      return false;
    }
    model.encode(piece, scratch, ids);
    return true;
  };
  if (vocabulary.kind == VocabularyKind::kByteLevelBpe) {
    pre_tokenizer.for_each_piece(text.data(), 0, text.size(), [&](size_t begin, size_t end) {
      return encode_piece(text.substr(begin, end - begin));
    });
  } else {
    write_space_marks(text, vocabulary.add_space_prefix, words);
    if (model.words_are_separate()) {
      for_each_word(words, encode_piece);
    } else {
      encode_piece(words);
    }
  }
  if (too_long != 0) return run_too_long(name, too_long);
  return ok();
}

}  // namespace bitnet
