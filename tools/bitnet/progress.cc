#include "progress.h"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace bitnet::cli {
namespace {

constexpr int kBarWidth = 30;
constexpr auto kPatience = std::chrono::milliseconds(400);  // shorter jobs show nothing
constexpr auto kBarInterval = std::chrono::milliseconds(100);
constexpr auto kLineInterval = std::chrono::seconds(5);

}  // namespace

Progress::Progress(std::string label)
    : label_(std::move(label)), terminal_(::isatty(STDERR_FILENO) != 0), start_(Clock::now()) {
  next_ = start_ + (terminal_ ? Clock::duration(kPatience) : Clock::duration(kLineInterval));
}

Progress::~Progress() {
  if (terminal_ && shown_) std::fputs("\r\x1b[K", stderr);
}

void Progress::update(double done) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? Clock::duration(kBarInterval) : Clock::duration(kLineInterval));
  shown_ = true;
  done = std::clamp(done, 0.0, 1.0);
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const std::string left = done > 0.02 ? fmt::format(", {:.0f} s left", elapsed / done - elapsed) : std::string();
  if (terminal_) {
    const int filled = int(done * kBarWidth);
    std::fputs(fmt::format("\r\x1b[K{} [{}{}] {:3.0f}%{}", label_, std::string(size_t(filled), '#'),
                           std::string(size_t(kBarWidth - filled), '.'), 100 * done, left)
                   .c_str(),
               stderr);
  } else {
    std::fputs(fmt::format("{}: {:.0f}%{}\n", label_, 100 * done, left).c_str(), stderr);
  }
  std::fflush(stderr);
}

}  // namespace bitnet::cli
