#pragma once

#include "tokenizer/split_rules.h"

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace bitnet {

// Cuts text into the pieces that byte pairs are merged in.
class PreTokenizer {
 public:
  static constexpr size_t kMaxRules = 6;

  struct Known {
    std::string_view name;       // as in GGUF's tokenizer.ggml.pre
    std::string_view canonical;  // what we call it and write
    std::span<const SplitRule> rules;
    bool ignore_merges;  // a whole piece in the vocabulary is taken before any merge
    bool adds_bos;       // unless the file says otherwise
  };
  static const Known* find(std::string_view name);
  // The name whose rules are these, or empty.
  static std::string_view find_by_rules(std::span<const SplitRule> rules);
  static std::string known_names();  // for error messages

  explicit PreTokenizer(std::span<const SplitRule> rules = {}) : rules_(rules) {}

  // fn(begin, end) for each piece of text[begin, end) in order; false from fn stops. Each rule cuts up the pieces of
  // the one before it. Without rules the whole stretch is one piece.
  template <class Fn>
  bool for_each_piece(const char* text, size_t begin, size_t end, Fn fn) const {
    if (begin == end) return true;
    if (rules_.empty()) return fn(begin, end);
    struct Stretch {
      size_t pos, end;
    };
    std::array<Stretch, kMaxRules> stretches;
    stretches[0] = {begin, end};
    const size_t last = rules_.size() - 1;
    for (size_t level = 0;;) {
      Stretch& stretch = stretches[level];
      if (stretch.pos == stretch.end) {
        if (level == 0) return true;
        --level;
        continue;
      }
      const size_t piece = stretch.pos;
      stretch.pos = piece_end(rules_[level], text, piece, stretch.end);
      if (level < last) {
        stretches[++level] = {piece, stretch.pos};
      } else if (!fn(piece, stretch.pos)) {
        return false;
      }
    }
  }

 private:
  std::span<const SplitRule> rules_;
};

}  // namespace bitnet
