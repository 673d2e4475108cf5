#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bitnet {

// The processor's own energy counters (RAPL) as Linux shows them in the powercap tree: packages and, beside them,
// memory. What else the machine draws is not in them. Not thread-safe.
class EnergyMeter {
 public:
  explicit EnergyMeter(const std::string& root = "/sys/class/powercap");

  // Why joules_since() has no answer: "not told by this machine", or that the counters may not be read. Empty: it has.
  const std::string& why_not() const { return why_not_; }
  std::vector<std::string> zones() const;  // "package-0", "dram"

  using Reading = std::vector<uint64_t>;  // microjoules, one a zone
  std::optional<Reading> read() const;
  // Joules between `start` and now, counters that wrapped around in between included; nothing if they cannot be read.
  std::optional<double> joules_since(const Reading& start) const;

 private:
  struct Zone {
    std::string name, path;
    uint64_t range_uj = 0;  // counters go from 0 to this
  };
  std::vector<Zone> zones_;
  std::string why_not_;
};

}  // namespace bitnet
