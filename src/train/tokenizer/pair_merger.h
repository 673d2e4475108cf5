#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bitnet {

// A piece of text that the pre-tokenizer cuts out, and how often it occurs.
struct CountedWord {
  std::string bytes;
  int64_t count = 0;
};

// Byte-pair encoding learned from words: again and again the most frequent pair of neighbouring symbols, counted over
// all words, becomes one symbol; of equally frequent pairs the one with the lower left id, then the lower right id
// (Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", 2016). Symbols 0 to 255 are
// bytes, in the order of `first_ids`. Counts are kept up to date, so that a merge costs what the words with its pair
// cost. Not thread-safe.
class PairMerger {
 public:
  using Pair = std::pair<int32_t, int32_t>;

  // `byte_ids[b]` is the symbol of byte b: a permutation of 0 to 255.
  PairMerger(std::span<const CountedWord> words, std::span<const int32_t, 256> byte_ids);

  struct Best {
    Pair pair;
    int64_t count;
  };
  // The next pair to merge; nothing when no word has two symbols left.
  std::optional<Best> best();
  // Replaces the pair by `symbol` in every word, from the left.
  void merge(const Pair& pair, int32_t symbol);
  // Of all words, each as often as it occurs.
  int64_t n_symbols() const;

 private:
  static constexpr uint64_t key(int32_t left, int32_t right) {
    return uint64_t(uint32_t(left)) << 32 | uint32_t(right);
  }
  struct PairState {
    int64_t count = 0;
    std::vector<uint32_t> words;  // where it was seen; it may be gone from some of them
  };
  struct Candidate {
    int64_t count;
    uint64_t key;
    // The queue's greatest: the highest count, the lowest pair.
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };
  struct Word {
    size_t begin;  // in symbols_
    uint32_t size;
    int64_t count;
  };

  // Adds to the count of a pair that a merge made or destroyed in a word; seen by commit_changes().
  void change(int32_t left, int32_t right, int64_t by) { changes_.emplace_back(key(left, right), by); }
  void merge_in_word(uint32_t word, int32_t left, int32_t right, int32_t symbol);
  void commit_changes();

  std::vector<int32_t> symbols_;  // of all words, one behind the other; words shrink in place
  std::vector<Word> words_;
  std::unordered_map<uint64_t, PairState> pairs_;
  // Each pair has an entry with at least its count. One that is out of date is put right when it comes out.
  std::priority_queue<Candidate> queue_;
  std::vector<std::pair<uint64_t, int64_t>> changes_;
};

}  // namespace bitnet
