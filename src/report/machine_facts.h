#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

// What a measurement depends on and a reader wants to know of the machine. Fields that the machine does not tell are
// empty or 0.
struct MachineFacts {
  struct Cache {
    int level = 0;
    std::string type;  // "Data", "Instruction", "Unified"
    uint64_t size_bytes = 0;
    std::string shared_by;  // processors: "0-1"
  };
  std::string cpu;       // "AMD EPYC 9B45", or what an ARM processor says of itself
  int n_processors = 0;  // that the system has
  int n_cores = 0;       // these are threads of
  std::vector<Cache> caches;
  uint64_t memory_bytes = 0;
  std::string kernel;    // "Linux 6.1.0"
  std::string governor;  // of the processor's frequency
  std::string load;      // processes that wanted to run in the last minute
  bool virtual_machine = false;
};

// From /proc and /sys below `root`.
MachineFacts read_machine_facts(const std::string& root = "");

}  // namespace bitnet
