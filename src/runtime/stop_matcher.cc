#include "runtime/stop_matcher.h"

#include <algorithm>

namespace bitnet {
namespace {

std::vector<size_t> borders_of(std::string_view stop) {
  std::vector<size_t> border(stop.size(), 0);
  for (size_t i = 1, length = 0; i < stop.size(); ++i) {
    while (length > 0 && stop[i] != stop[length]) length = border[length - 1];
    if (stop[i] == stop[length]) ++length;
    border[i] = length;
  }
  return border;
}

}  // namespace

Result<StopMatcher> StopMatcher::create(const std::vector<std::string>& stops) {
  StopMatcher matcher;
  size_t longest = 0;
  for (const std::string& stop : stops) {
    if (stop.empty()) return invalid_argument("a stop string is empty: it would stop before any text");
    if ((uint8_t(stop[0]) & 0xc0u) == 0x80u) {
      return invalid_argument("a stop string begins with byte 0x{:02x}, which is the middle of a UTF-8 character",
                              uint8_t(stop[0]));
    }
    Automaton automaton;
    automaton.stop = stop;
    automaton.border = borders_of(stop);
    matcher.automata_.push_back(std::move(automaton));
    longest = std::max(longest, stop.size());
  }
  // Room for what is held back and a long token's text on both sides of the compaction in push().
  matcher.buffer_.reserve(2 * longest + 1024);
  return matcher;
}

std::string_view StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  // Compacting only when at least half is used up moves each byte a bounded number of times.
  if (begin_ * 2 >= buffer_.size()) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  size_t position = buffer_.size();
  buffer_.append(text);
  for (const char byte : text) {
    ++position;
    size_t match_bytes = 0;
    for (Automaton& a : automata_) {
      while (a.state > 0 && a.stop[a.state] != byte) a.state = a.border[a.state - 1];
      if (a.stop[a.state] == byte) ++a.state;
      if (a.state == a.stop.size()) match_bytes = std::max(match_bytes, a.state);
    }
    if (match_bytes > 0) {
      matched_ = true;
      return take(position - match_bytes - begin_);
    }
  }
  size_t held_bytes = 0;
  for (const Automaton& a : automata_) held_bytes = std::max(held_bytes, a.state);
  return take(buffer_.size() - held_bytes - begin_);
}

std::string_view StopMatcher::finish() { return matched_ ? std::string_view() : take(buffer_.size() - begin_); }

std::string_view StopMatcher::take(size_t n_bytes) {
  const std::string_view taken = std::string_view(buffer_).substr(begin_, n_bytes);
  begin_ += n_bytes;
  return taken;
}

}  // namespace bitnet
