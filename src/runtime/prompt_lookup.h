#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// Guesses how a sequence goes on: as it did after the last earlier occurrence of its last few tokens ("prompt lookup
// decoding", Saxena 2023). Allocates nothing after construction.
class PromptLookup {
 public:
  explicit PromptLookup(int64_t max_draft);

  // At most max_tokens ids, none when nothing fits; valid until the next call. A sequence that repeats itself with a
  // period shorter than the draft goes on repeating.
  std::span<const int32_t> propose(std::span<const int32_t> ids, int64_t max_tokens);
  // How many of the last proposal came true: drafts get longer while they do, and shorter when they do not.
  void report(int64_t n_accepted);

 private:
  std::vector<int32_t> draft_;
  int64_t length_;  // of the next draft
  int64_t n_proposed_ = 0;
};

}  // namespace bitnet
