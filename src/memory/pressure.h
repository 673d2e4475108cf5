#pragma once

#include "memory/limits.h"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace bitnet {

enum class Pressure : uint8_t { kNone, kModerate, kHigh, kCritical };
const char* pressure_name(Pressure pressure);  // "none", "moderate", "high", "critical"

// From 80%, 90% and 95% of the limit on; from 10% and 40% of the time spent waiting for memory, high and critical.
Pressure pressure_of(const MemoryLimits& limits);

// Tells when the pressure has changed. It looks when asked to, and starts no thread. One caller at a time.
class PressureMonitor {
 public:
  using Callback = std::function<void(Pressure pressure, const MemoryLimits& limits)>;
  // `root`: see read_memory_limits().
  explicit PressureMonitor(Callback on_change, std::string root = "")
      : on_change_(std::move(on_change)), root_(std::move(root)) {}

  // Calls back if the pressure is another than at the last look (at first: than none).
  Pressure look();

 private:
  Callback on_change_;
  std::string root_;
  Pressure last_ = Pressure::kNone;
};

}  // namespace bitnet
