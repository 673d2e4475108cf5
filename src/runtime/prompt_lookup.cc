#include "runtime/prompt_lookup.h"

#include <algorithm>

namespace bitnet {
namespace {

// Fewer tokens in common are chance; looking for more finds the better place first.
constexpr int64_t kMostInCommon = 4, kLeastInCommon = 2;
constexpr int64_t kShortestDraft = 2, kFirstDraft = 4;

}  // namespace

PromptLookup::PromptLookup(int64_t max_draft) : length_(std::min(max_draft, kFirstDraft)) {
  draft_.resize(size_t(std::max<int64_t>(0, max_draft)));
}

std::span<const int32_t> PromptLookup::propose(std::span<const int32_t> ids, int64_t max_tokens) {
  n_proposed_ = 0;
  const int64_t n_ids = int64_t(ids.size()), length = std::min(length_, max_tokens);
  if (length < 1) return {};
  for (int64_t n = std::min(kMostInCommon, n_ids - 1); n >= kLeastInCommon; --n) {
    const std::span<const int32_t> last = ids.last(size_t(n));
    for (int64_t begin = n_ids - n - 1; begin >= 0; --begin) {
      if (!std::equal(last.begin(), last.end(), ids.begin() + begin)) continue;
      for (int64_t i = 0, from = begin + n; i < length; ++i, ++from) {
        draft_[size_t(i)] = from < n_ids ? ids[size_t(from)] : draft_[size_t(from - n_ids)];
      }
      n_proposed_ = length;
      return {draft_.data(), size_t(length)};
    }
  }
  return {};
}

void PromptLookup::report(int64_t n_accepted) {
  if (n_proposed_ == 0) return;
  const int64_t next = n_accepted == n_proposed_ ? 2 * length_ : n_accepted + 1;
  length_ = std::clamp(next, std::min(kShortestDraft, int64_t(draft_.size())), int64_t(draft_.size()));
}

}  // namespace bitnet
