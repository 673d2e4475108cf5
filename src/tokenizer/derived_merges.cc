#include "tokenizer/derived_merges.h"

#include "tokenizer/unicode.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace bitnet {
namespace {

using TokenIds = std::unordered_map<std::string_view, size_t>;

TokenIds normal_tokens(const Vocabulary& vocabulary) {
  TokenIds ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] == TokenType::kNormal) ids.emplace(vocabulary.tokens[id], id);
  }
  return ids;
}

// fn(left, right) for every cut of `token` at a character, of which both sides are symbols. In the byte-level
// alphabet a character is a byte.
template <class Fn>
void for_each_cut(std::string_view token, const Vocabulary& vocabulary, const TokenIds& ids, Fn fn) {
  const auto is_symbol = [&](std::string_view part) {
    if (ids.count(part) != 0) return true;
    return vocabulary.kind == VocabularyKind::kSentencePieceBpe &&
           utf8_at(part.data(), 0, part.size()).size_bytes == part.size();
  };
  for (size_t pos = 0; pos < token.size();) {
    pos += utf8_at(token.data(), pos, token.size()).size_bytes;
    if (pos == token.size()) return;
    const std::string_view left = token.substr(0, pos), right = token.substr(pos);
    if (is_symbol(left) && is_symbol(right)) fn(left, right);
  }
}

}  // namespace

std::vector<std::pair<std::string, std::string>> merges_as_list(const Vocabulary& vocabulary) {
  if (!vocabulary.merges.empty()) return vocabulary.merges;
  const bool by_score = vocabulary.kind == VocabularyKind::kSentencePieceBpe;
  if (!by_score && !vocabulary.merge_by_rank) return {};
  std::vector<size_t> order(vocabulary.tokens.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (by_score) {
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return vocabulary.scores[a] > vocabulary.scores[b]; });
  }
  const TokenIds ids = normal_tokens(vocabulary);
  std::vector<std::pair<std::string, std::string>> merges;
  for (const size_t id : order) {
    if (vocabulary.types[id] != TokenType::kNormal) continue;
    for_each_cut(vocabulary.tokens[id], vocabulary, ids,
                 [&](std::string_view left, std::string_view right) { merges.emplace_back(left, right); });
  }
  return merges;
}

bool scores_make_listed_merges(const Vocabulary& vocabulary) {
  const TokenIds ids = normal_tokens(vocabulary);
  size_t n_cuts = 0;
  for (const auto& [token, id] : ids) {
    for_each_cut(token, vocabulary, ids, [&](std::string_view, std::string_view) { ++n_cuts; });
  }
  if (n_cuts != vocabulary.merges.size()) return false;
  // A score ranks a token, not a cut: all merges that make one token must stand together.
  std::unordered_set<std::string> made;
  std::string previous;
  for (const auto& [left, right] : vocabulary.merges) {
    std::string token = left + right;
    if (token == previous) continue;
    if (ids.count(left) == 0 || ids.count(right) == 0 || ids.count(token) == 0) return false;
    if (!made.insert(token).second) return false;
    previous = std::move(token);
  }
  return true;
}

}  // namespace bitnet
