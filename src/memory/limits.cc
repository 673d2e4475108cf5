#include "memory/limits.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

namespace bitnet {
namespace {

// "max" and version 1's huge number mean that there is none.
constexpr uint64_t kNoLimit = uint64_t{1} << 60;

std::string read_small(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

std::optional<uint64_t> parse(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// The number after `key` at the beginning of a line.
std::optional<uint64_t> field(std::string_view text, std::string_view key) {
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) end = text.size();
    std::string_view line = text.substr(at, end - at);
    if (line.starts_with(key)) {
      line.remove_prefix(key.size());
      const size_t digit = line.find_first_not_of(" \t:");
      if (digit != std::string_view::npos && digit > 0) return parse(line.substr(digit));
    }
    at = end + 1;
  }
  return std::nullopt;
}

// A control group's folder and those around it, innermost first.
std::vector<std::string> enclosing(const std::string& base, std::string path) {
  std::vector<std::string> folders;
  while (!path.empty() && path != "/") {
    folders.push_back(base + path);
    path.resize(path.find_last_of('/'));
  }
  folders.push_back(base);
  return folders;
}

struct Names {
  const char *limit, *used, *inactive;
};
constexpr Names kVersion1{"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"};
constexpr Names kVersion2{"/memory.max", "/memory.current", "inactive_file"};

void apply_groups(const std::vector<std::string>& folders, const Names& names, MemoryLimits& limits) {
  for (const std::string& folder : folders) {
    std::optional<uint64_t> limit = parse(read_small(folder + names.limit));
    // Beyond `high` the kernel slows the group down, so that counts as the limit.
    if (const auto high = parse(read_small(folder + "/memory.high")); high && (!limit || *high < *limit)) limit = high;
    const std::optional<uint64_t> used = parse(read_small(folder + names.used));
    if (!limit || *limit >= kNoLimit || !used) continue;
    const uint64_t inactive = field(read_small(folder + "/memory.stat"), names.inactive).value_or(0);
    const uint64_t firmly_used = *used - std::min(*used, inactive);
    const uint64_t available = *limit - std::min(*limit, firmly_used);
    if (limits.limit_bytes != 0 && available >= limits.available_bytes) continue;
    limits.limit_bytes = *limit;
    limits.used_bytes = firmly_used;
    limits.available_bytes = available;
  }
}

// "some avg10=1.23 avg60=...".
double stall_percent(const std::string& text) {
  const size_t at = text.find("some avg10=");
  double value = -1;
  if (at != std::string::npos) std::istringstream(text.substr(at + 11)) >> value;
  return value;
}

}  // namespace

MemoryLimits read_memory_limits(const std::string& root) {
  MemoryLimits limits;
  const std::string machine = read_small(root + "/proc/meminfo");
  if (const auto total = field(machine, "MemTotal")) {
    limits.limit_bytes = *total * 1024;
    limits.available_bytes = std::min(field(machine, "MemAvailable").value_or(*total), *total) * 1024;
    limits.used_bytes = limits.limit_bytes - limits.available_bytes;
  }
  limits.stall_percent = stall_percent(read_small(root + "/proc/pressure/memory"));

  std::istringstream groups(read_small(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      const std::vector<std::string> folders = enclosing(root + "/sys/fs/cgroup/memory", path);
      apply_groups(folders, kVersion1, limits);
      limits.n_oom_kills = field(read_small(folders.front() + "/memory.oom_control"), "oom_kill").value_or(0);
    } else if (controllers.empty() && line.starts_with("0:")) {
      for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        const std::vector<std::string> folders = enclosing(root + mount, path);
        apply_groups(folders, kVersion2, limits);
        if (const auto kills = field(read_small(folders.front() + "/memory.events"), "oom_kill")) {
          limits.n_oom_kills = *kills;
        }
        const double group_stall = stall_percent(read_small(folders.front() + "/memory.pressure"));
        limits.stall_percent = std::max(limits.stall_percent, group_stall);
      }
    }
  }
  return limits;
}

}  // namespace bitnet
