#include "report/machine_facts.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <utility>

namespace bitnet {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "512K", "32M", or "24654321 kB".
uint64_t size_in_bytes(const std::string& text) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(text.c_str(), &end, 10);
  const size_t unit = std::string(end).find_first_not_of(' ');
  switch (unit == std::string::npos ? 0 : end[unit]) {
    case 'K':
    case 'k': return number << 10;
    case 'M': return number << 20;
    case 'G': return number << 30;
    default: return number;
  }
}

// /proc/cpuinfo: blocks of "key : value", one a processor.
void read_cpuinfo(const std::string& path, MachineFacts& facts) {
  std::ifstream file(path);
  std::map<std::string, std::string> first;
  std::set<std::pair<std::string, std::string>> cores;
  std::string package;
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const size_t begin = line.find_first_not_of(' ', colon + 1);
    const std::string value = begin == std::string::npos ? "" : line.substr(begin);
    first.emplace(key, value);
    if (key == "processor") ++facts.n_processors;
    if (key == "physical id") package = value;
    if (key == "core id") cores.emplace(package, value);
  }
  facts.n_cores = cores.empty() ? facts.n_processors : int(cores.size());
  facts.virtual_machine = (" " + first["flags"] + " ").find(" hypervisor ") != std::string::npos;
  if (const auto name = first.find("model name"); name != first.end()) {
    facts.cpu = name->second;
  } else if (first.count("CPU part") != 0) {
    facts.cpu = fmt::format("ARM, implementer {}, part {}", first["CPU implementer"], first["CPU part"]);
  }
}

}  // namespace

MachineFacts read_machine_facts(const std::string& root) {
  MachineFacts facts;
  read_cpuinfo(root + "/proc/cpuinfo", facts);
  const std::string cpu0 = root + "/sys/devices/system/cpu/cpu0/";
  for (int i = 0;; ++i) {
    const std::string folder = fmt::format("{}cache/index{}/", cpu0, i);
    const std::string level = first_line(folder + "level");
    if (level.empty()) break;
    facts.caches.push_back({std::atoi(level.c_str()), first_line(folder + "type"),
                            size_in_bytes(first_line(folder + "size")), first_line(folder + "shared_cpu_list")});
  }
  facts.governor = first_line(cpu0 + "cpufreq/scaling_governor");
  const std::string total = first_line(root + "/proc/meminfo");  // "MemTotal:       24654321 kB"
  if (total.starts_with("MemTotal:")) facts.memory_bytes = size_in_bytes(total.substr(9));
  const std::string release = first_line(root + "/proc/sys/kernel/osrelease");
  if (!release.empty()) facts.kernel = first_line(root + "/proc/sys/kernel/ostype") + " " + release;
  const std::string load = first_line(root + "/proc/loadavg");
  facts.load = load.substr(0, load.find(' '));
  return facts;
}

}  // namespace bitnet
