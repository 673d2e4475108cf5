#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// Byte strings by number, in one allocation.
class TokenStrings {
 public:
  void reserve(size_t n) { ends_.reserve(n); }
  void push_back(std::string_view text) {
    text_.append(text);
    ends_.push_back(text_.size());
  }
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(begin, ends_[i] - begin);
  }

 private:
  std::string text_;
  std::vector<size_t> ends_;
};

// Finds the number of a string: a flat hash table of numbers beside the strings, which the caller keeps.
class TokenIndex {
 public:
  explicit TokenIndex(size_t capacity = 0);
  // The id of an equal string that is there already, or `id` after adding it. At most `capacity` strings.
  int32_t insert(const TokenStrings& strings, int32_t id);
  // -1 when there is none.
  int32_t find(const TokenStrings& strings, std::string_view text) const {
    if (text.size() > max_size_bytes_) return -1;
    return slots_[slot_of(strings, text, hash(text))].id;
  }
  size_t max_size_bytes() const { return max_size_bytes_; }  // of the strings in it

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  static uint64_t hash(std::string_view text);
  // The slot that holds `text`, or the empty one where it would go.
  size_t slot_of(const TokenStrings& strings, std::string_view text, uint64_t hash) const;

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t max_size_bytes_ = 0;
};

}  // namespace bitnet
