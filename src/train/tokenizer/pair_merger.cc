#include "train/tokenizer/pair_merger.h"

#include <algorithm>

namespace bitnet {

PairMerger::PairMerger(std::span<const CountedWord> words, std::span<const int32_t, 256> byte_ids) {
  words_.reserve(words.size());
  for (const CountedWord& word : words) {
    const uint32_t index = uint32_t(words_.size());
    const size_t begin = symbols_.size();
    for (const char c : word.bytes) symbols_.push_back(byte_ids[uint8_t(c)]);
    words_.push_back({begin, uint32_t(word.bytes.size()), word.count});
    for (size_t i = begin + 1; i < symbols_.size(); ++i) {
      PairState& pair = pairs_[key(symbols_[i - 1], symbols_[i])];
      pair.count += word.count;
      if (pair.words.empty() || pair.words.back() != index) pair.words.push_back(index);
    }
  }
  for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
}

int64_t PairMerger::n_symbols() const {
  int64_t n = 0;
  for (const Word& word : words_) n += word.count * int64_t(word.size);
  return n;
}

std::optional<PairMerger::Best> PairMerger::best() {
  while (!queue_.empty()) {
    const Candidate top = queue_.top();
    const auto pair = pairs_.find(top.key);
    const int64_t count = pair == pairs_.end() ? 0 : pair->second.count;
    if (count == top.count) return Best{{int32_t(top.key >> 32), int32_t(uint32_t(top.key))}, count};
    queue_.pop();
    if (count > 0) queue_.push({count, top.key});
  }
  return std::nullopt;
}

void PairMerger::merge(const Pair& pair, int32_t symbol) {
  const auto found = pairs_.find(key(pair.first, pair.second));
  if (found == pairs_.end()) return;
  const std::vector<uint32_t> words = std::move(found->second.words);
  for (const uint32_t word : words) merge_in_word(word, pair.first, pair.second, symbol);
  commit_changes();
  pairs_.erase(key(pair.first, pair.second));
}

void PairMerger::merge_in_word(uint32_t index, int32_t left, int32_t right, int32_t symbol) {
  Word& word = words_[index];
  int32_t* const s = symbols_.data() + word.begin;
  uint32_t n = 0;  // symbols of the result so far
  bool changed = false;
  const auto appears = [&](int32_t a, int32_t b) {
    change(a, b, word.count);
    PairState& pair = pairs_[key(a, b)];
    if (pair.words.empty() || pair.words.back() != index) pair.words.push_back(index);
  };
  for (uint32_t i = 0; i < word.size;) {
    if (i + 1 == word.size || s[i] != left || s[i + 1] != right) {
      s[n++] = s[i++];
      continue;
    }
    if (n > 0) {
      change(s[n - 1], left, -word.count);
      appears(s[n - 1], symbol);
    }
    if (i + 2 < word.size) {
      change(right, s[i + 2], -word.count);
      appears(symbol, s[i + 2]);
    }
    s[n++] = symbol;
    i += 2;
    changed = true;
  }
  if (changed) word.size = n;
}

void PairMerger::commit_changes() {
  std::sort(changes_.begin(), changes_.end());
  for (size_t i = 0; i < changes_.size();) {
    const uint64_t pair = changes_[i].first;
    int64_t by = 0;
    bool grew = false;
    for (; i < changes_.size() && changes_[i].first == pair; ++i) {
      by += changes_[i].second;
      grew |= changes_[i].second > 0;
    }
    PairState& state = pairs_[pair];
    state.count += by;
    if (state.count <= 0) {
      pairs_.erase(pair);
    } else if (grew) {
      queue_.push({state.count, pair});
    }
  }
  changes_.clear();
}

}  // namespace bitnet
