#pragma once

#include "base/result.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// Finds the first stop string in a stream of text, however the text is cut into pieces, and holds back only what may
// still turn out to begin one. The first to be complete wins; of those that end together the longest, so the text ends
// before all of them. Time is linear in the text for each stop string (one Knuth-Morris-Pratt automaton each).
class StopMatcher {
 public:
  // Refuses an empty stop string and one that begins inside a UTF-8 character.
  static Result<StopMatcher> create(const std::vector<std::string>& stops);

  // The text that became certain with `text`; valid until the next call. Nothing more comes after a match.
  std::string_view push(std::string_view text);
  // What was held back when the stream ends without a match.
  std::string_view finish();
  bool matched() const { return matched_; }

 private:
  struct Automaton {
    std::string stop;
    std::vector<size_t> border;  // [i]: longest proper border of the first i + 1 bytes
    size_t state = 0;            // bytes of `stop` that the stream ends with
  };
  std::string_view take(size_t n_bytes);

  std::vector<Automaton> automata_;
  std::string buffer_;  // from begin_ on: text not handed out
  size_t begin_ = 0;
  bool matched_ = false;
};

}  // namespace bitnet
