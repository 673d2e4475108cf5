#include "report/energy.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace bitnet {
namespace {

template <class T>
std::optional<T> read_value(const std::string& path) {
  std::ifstream file(path);
  T value{};
  if (!(file >> value)) return std::nullopt;
  return value;
}

}  // namespace

// Linux, Documentation/power/powercap/powercap.rst: zones are folders named "intel-rapl:0", parts of them
// "intel-rapl:0:2", also on AMD. A package's cores and graphics are parts that its own counter holds; memory is not.
// The zone "psys" holds all others.
EnergyMeter::EnergyMeter(const std::string& root) {
  std::error_code failure;
  std::vector<std::string> folders;
  for (std::filesystem::directory_iterator entry(root, failure), end; !failure && entry != end;
       entry.increment(failure)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("intel-rapl:")) folders.push_back(entry->path().string());
  }
  std::sort(folders.begin(), folders.end());
  for (const std::string& folder : folders) {
    const std::string name = read_value<std::string>(folder + "/name").value_or("");
    if (!name.starts_with("package") && name != "dram") continue;
    if (!read_value<uint64_t>(folder + "/energy_uj")) {
      why_not_ = folder + "/energy_uj may not be read by this user";
      continue;
    }
    zones_.push_back({name, folder, read_value<uint64_t>(folder + "/max_energy_range_uj").value_or(0)});
  }
  if (!zones_.empty()) {
    why_not_.clear();
  } else if (why_not_.empty()) {
    why_not_ = "not told by this machine";
  }
}

std::vector<std::string> EnergyMeter::zones() const {
  std::vector<std::string> names;
  for (const Zone& zone : zones_) names.push_back(zone.name);
  return names;
}

std::optional<EnergyMeter::Reading> EnergyMeter::read() const {
  if (zones_.empty()) return std::nullopt;
  Reading reading;
  for (const Zone& zone : zones_) {
    const std::optional<uint64_t> value = read_value<uint64_t>(zone.path + "/energy_uj");
    if (!value) return std::nullopt;
    reading.push_back(*value);
  }
  return reading;
}

std::optional<double> EnergyMeter::joules_since(const Reading& start) const {
  const std::optional<Reading> now = read();
  if (!now || now->size() != start.size()) return std::nullopt;
  double sum = 0;
  for (size_t i = 0; i < start.size(); ++i) {
    const bool wrapped = (*now)[i] < start[i];
    sum += wrapped ? double((*now)[i]) + double(zones_[i].range_uj) - double(start[i]) : double((*now)[i] - start[i]);
  }
  return sum / 1e6;
}

}  // namespace bitnet
