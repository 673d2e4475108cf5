#pragma once

#include <chrono>
#include <string>

namespace bitnet::cli {

// How far a long job is, on stderr: a bar on a terminal, otherwise a plain line now and then. Quick jobs show nothing.
class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();  // takes the bar away
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(double done);  // 0 to 1

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  bool terminal_;
  bool shown_ = false;
  Clock::time_point next_;
  Clock::time_point start_;
};

}  // namespace bitnet::cli
