#include "memory/pressure.h"

#include <algorithm>

namespace bitnet {

const char* pressure_name(Pressure pressure) {
  switch (pressure) {
    case Pressure::kNone: return "none";
    case Pressure::kModerate: return "moderate";
    case Pressure::kHigh: return "high";
    case Pressure::kCritical: return "critical";
  }
  return "none";
}

Pressure pressure_of(const MemoryLimits& limits) {
  Pressure pressure = Pressure::kNone;
  if (limits.limit_bytes > 0) {
    const double share = double(limits.used_bytes) / double(limits.limit_bytes);
    pressure = share >= 0.95  ? Pressure::kCritical
               : share >= 0.9 ? Pressure::kHigh
               : share >= 0.8 ? Pressure::kModerate
                              : Pressure::kNone;
  }
  if (limits.stall_percent >= 40) return Pressure::kCritical;
  return limits.stall_percent >= 10 ? std::max(pressure, Pressure::kHigh) : pressure;
}

Pressure PressureMonitor::look() {
  const MemoryLimits limits = read_memory_limits(root_);
  const Pressure pressure = pressure_of(limits);
  if (pressure != last_) {
    last_ = pressure;
    if (on_change_) on_change_(pressure, limits);
  }
  return pressure;
}

}  // namespace bitnet
