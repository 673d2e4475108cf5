#include "tokenizer/bpe_model.h"

#include "format/text.h"
#include "tokenizer/unicode.h"

#include <algorithm>
#include <set>
#include <string>

namespace bitnet {
namespace {

constexpr bool is_in_utf8(uint8_t byte) { return byte != 0xc0 && byte != 0xc1 && byte < 0xf5; }

// Every way to cut `text` into two, at bytes or at characters: fn(left, right).
template <class Fn>
void for_each_cut(std::string_view text, bool byte_level, Fn fn) {
  for (size_t pos = 0; pos < text.size();) {
    pos += byte_level ? 1 : utf8_at(text.data(), pos, text.size()).size_bytes;
    if (pos < text.size()) fn(text.substr(0, pos), text.substr(pos));
  }
}

bool has_inner_space_mark(std::string_view token) {
  while (token.substr(0, kSpaceMark.size()) == kSpaceMark) token.remove_prefix(kSpaceMark.size());
  return token.find(kSpaceMark) != std::string_view::npos;
}

// Rank of each token as the result of a merge, 0 best: tiktoken's order of ids, or SentencePiece's of scores.
std::vector<uint32_t> ranks_of_results(const Vocabulary& vocabulary) {
  std::vector<uint32_t> ranks(vocabulary.tokens.size());
  if (vocabulary.scores.empty()) {
    for (size_t id = 0; id < ranks.size(); ++id) ranks[id] = uint32_t(id);
    return ranks;
  }
  std::vector<float> scores = vocabulary.scores;
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  for (size_t id = 0; id < ranks.size(); ++id) {
    const auto it = std::lower_bound(scores.begin(), scores.end(), vocabulary.scores[id], std::greater<>());
    ranks[id] = uint32_t(it - scores.begin());
  }
  return ranks;
}

}  // namespace

Result<BpeModel> BpeModel::build(const Vocabulary& vocabulary, const std::string& name) {
  BpeModel model;
  model.byte_level_ = vocabulary.kind == VocabularyKind::kByteLevelBpe;
  model.ignore_merges_ = vocabulary.ignore_merges;
  BN_RETURN_IF_ERROR(model.add_tokens(vocabulary, name));
  if (vocabulary.merge_by_rank || (!model.byte_level_ && vocabulary.merges.empty())) {
    model.add_merges_by_cutting(vocabulary);
  } else {
    BN_RETURN_IF_ERROR(model.add_listed_merges(vocabulary, name));
  }
  model.merges_to_itself_ = std::make_unique<std::atomic<uint8_t>[]>(vocabulary.tokens.size());
  return model;
}

Status BpeModel::add_tokens(const Vocabulary& vocabulary, const std::string& name) {
  n_tokens_ = int32_t(vocabulary.tokens.size());
  symbols_.reserve(vocabulary.tokens.size());
  index_ = TokenIndex(vocabulary.tokens.size());
  byte_ids_.fill(-1);
  words_are_separate_ = true;
  std::string bytes;
  for (int32_t id = 0; id < n_tokens_; ++id) {
    const std::string& token = vocabulary.tokens[size_t(id)];
    const TokenType type = vocabulary.types[size_t(id)];
    const bool spelled = type == TokenType::kNormal && (!byte_level_ || bytes_from_alphabet(token, bytes));
    symbols_.push_back(!spelled ? std::string_view() : byte_level_ ? bytes : token);
    if (type == TokenType::kByte && !byte_level_) byte_ids_[*byte_token_value(token)] = id;
    if (!spelled) continue;
    index_.insert(symbols_, id);
    if (byte_level_ && bytes.size() == 1) byte_ids_[uint8_t(bytes[0])] = id;
    if (has_inner_space_mark(token)) words_are_separate_ = false;
  }
  if (byte_level_) {
    for (const char byte : std::string_view("\ufffd")) unknown_.push_back(byte_ids_[uint8_t(byte)]);
    if (std::count(unknown_.begin(), unknown_.end(), -1) != 0) unknown_.clear();
    // Rare characters may be missing from what a vocabulary was made of; a printable one that is missing is damage.
    const auto missing = std::find(byte_ids_.begin() + ' ', byte_ids_.begin() + '~' + 1, -1);
    if (missing == byte_ids_.begin() + '~' + 1) return ok();
    return invalid_input("{}: the vocabulary has no token for the character '{}'", name,
                         char(missing - byte_ids_.begin()));
  }
  if (vocabulary.unk_id) unknown_.push_back(*vocabulary.unk_id);
  const auto missing = std::find(byte_ids_.begin(), byte_ids_.end(), -1);
  if (unknown_.empty() && missing != byte_ids_.end()) {
    return invalid_input("{}: the vocabulary has no token for byte 0x{:02x} and no unknown token to stand for it", name,
                         missing - byte_ids_.begin());
  }
  return ok();
}

std::vector<uint8_t> BpeModel::missing_bytes() const {
  std::vector<uint8_t> bytes;
  for (size_t byte = 0; byte_level_ && byte < byte_ids_.size(); ++byte) {
    if (byte_ids_[byte] < 0 && is_in_utf8(uint8_t(byte))) bytes.push_back(uint8_t(byte));
  }
  return bytes;
}

Status BpeModel::add_listed_merges(const Vocabulary& vocabulary, const std::string& name) {
  TokenStrings texts;
  texts.reserve(vocabulary.tokens.size());
  TokenIndex ids(vocabulary.tokens.size());
  for (int32_t id = 0; id < n_tokens_; ++id) {
    texts.push_back(vocabulary.tokens[size_t(id)]);
    ids.insert(texts, id);
  }
  merges_ = MergeTable(vocabulary.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto& [left, right] = vocabulary.merges[rank];
    joined.assign(left).append(right);
    const int32_t left_id = ids.find(texts, left), right_id = ids.find(texts, right), id = ids.find(texts, joined);
    if (left_id < 0 || right_id < 0 || id < 0) {
      return invalid_input("{}: merge {} joins {} and {}, but the vocabulary has no token {}", name, rank,
                           quote_name(left), quote_name(right),
                           quote_name(left_id < 0    ? left
                                      : right_id < 0 ? right
                                                     : joined));
    }
    // Special tokens never come out of text, not even where a merge would spell one.
    if (is_special(vocabulary.types[size_t(id)])) continue;
    if (!merges_.insert(left_id, right_id, {uint32_t(rank), id})) {
      return invalid_input("{}: merge {} ({} and {}) is given twice", name, rank, quote_name(left), quote_name(right));
    }
  }
  return ok();
}

void BpeModel::number_inner_characters() {
  std::set<std::string> characters;
  for (int32_t id = 0; id < n_tokens_; ++id) {
    const std::string_view text = symbols_[size_t(id)];
    for (size_t pos = 0; pos < text.size();) {
      const size_t size = utf8_at(text.data(), pos, text.size()).size_bytes;
      const std::string_view character = text.substr(pos, size);
      if (index_.find(symbols_, character) < 0) characters.emplace(character);
      pos += size;
    }
  }
  TokenIndex grown(size_t(n_tokens_) + characters.size());
  for (const std::string& character : characters) symbols_.push_back(character);
  for (size_t i = 0; i < symbols_.size(); ++i) {
    if (!symbols_[i].empty()) grown.insert(symbols_, int32_t(i));
  }
  index_ = std::move(grown);
}

void BpeModel::add_merges_by_cutting(const Vocabulary& vocabulary) {
  if (!byte_level_) number_inner_characters();
  struct Cut {
    int32_t left, right, id;
  };
  std::vector<Cut> cuts;
  for (int32_t id = 0; id < n_tokens_; ++id) {
    for_each_cut(symbols_[size_t(id)], byte_level_, [&](std::string_view left, std::string_view right) {
      const int32_t left_id = index_.find(symbols_, left), right_id = index_.find(symbols_, right);
      if (left_id >= 0 && right_id >= 0) cuts.push_back({left_id, right_id, id});
    });
  }
  const std::vector<uint32_t> ranks = ranks_of_results(vocabulary);
  merges_ = MergeTable(cuts.size());
  for (const Cut& cut : cuts) merges_.insert(cut.left, cut.right, {ranks[size_t(cut.id)], cut.id});
}

void BpeModel::start_symbols(std::string_view piece, Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.symbols.ids;
  ids.clear();
  scratch.starts.clear();
  if (byte_level_) {
    for (const char byte : piece) ids.push_back(byte_ids_[uint8_t(byte)]);
    return;
  }
  for (size_t pos = 0; pos < piece.size();) {
    const size_t size = utf8_at(piece.data(), pos, piece.size()).size_bytes;
    ids.push_back(index_.find(symbols_, piece.substr(pos, size)));
    scratch.starts.push_back(uint32_t(pos));
    pos += size;
  }
}

// A byte without a token, or the bytes of a character without one.
void BpeModel::append_unmerged(std::string_view symbol, std::vector<int32_t>& ids) const {
  if (byte_level_) {
    if (!is_in_utf8(uint8_t(symbol[0]))) ids.insert(ids.end(), unknown_.begin(), unknown_.end());
    return;
  }
  for (const char byte : symbol) {
    const int32_t id = byte_ids_[uint8_t(byte)];
    if (id >= 0) {
      ids.push_back(id);
    } else if (ids.empty() || ids.back() != unknown_[0]) {
      ids.push_back(unknown_[0]);
    }
  }
}

void BpeModel::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  const int32_t whole = index_.find(symbols_, piece);
  const bool is_token = whole >= 0 && whole < n_tokens_;
  if (is_token && (ignore_merges_ || merges_to_itself_[size_t(whole)].load(std::memory_order_relaxed) == 1)) {
    ids.push_back(whole);
    return;
  }
  start_symbols(piece, scratch);
  merges_.merge_all(scratch.symbols);
  const std::vector<int32_t>& merged = scratch.symbols.ids;
  if (is_token) {
    const bool same = merged.size() == 1 && merged[0] == whole;
    merges_to_itself_[size_t(whole)].store(same ? 1 : 2, std::memory_order_relaxed);
  }
  for (size_t i = 0; i < merged.size(); ++i) {
    if (merged[i] >= 0 && merged[i] < n_tokens_) {
      ids.push_back(merged[i]);
      continue;
    }
    const size_t first = scratch.symbols.first[i];
    const size_t begin = byte_level_ ? first : scratch.starts[first];
    const size_t size = byte_level_ ? 1 : utf8_at(piece.data(), begin, piece.size()).size_bytes;
    append_unmerged(piece.substr(begin, size), ids);
  }
}

}  // namespace bitnet
