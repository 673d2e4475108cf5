#pragma once

#include <cstdint>
#include <string>

namespace bitnet {

// What memory this process may have, as the system says it now; 0 or -1 where it does not.
struct MemoryLimits {
  uint64_t limit_bytes = 0;      // the machine's, or of the control group that has least left
  uint64_t used_bytes = 0;       // of that limit, without what the kernel would drop (file pages nobody used lately)
  uint64_t available_bytes = 0;  // before something must go
  uint64_t n_oom_kills = 0;      // processes of the group that the kernel ended
  double stall_percent = -1;     // time of the last 10 s in which somebody waited for memory (PSI)
};

// `root` stands in front of /proc and /sys. Knows control groups of both versions. Costs a few file reads.
MemoryLimits read_memory_limits(const std::string& root = "");

}  // namespace bitnet
