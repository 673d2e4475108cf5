#pragma once

#include "base/result.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace bitnet {

// What a MetricsLog wrote, read back.
struct RunHistory {
  struct Series {
    std::vector<double> steps, values;  // NaN where the value was not finite
  };
  struct Sample {
    int64_t step = 0;
    std::string name, text;
  };
  std::map<std::string, Series> series;  // by metric
  std::vector<Sample> samples;           // in the file's order
  int64_t last_step = 0;
  double first_time_s = 0, last_time_s = 0;  // since 1970
};

// Refuses a folder without metrics.jsonl and lines that are not ours; a last line that is being written is left out.
Result<RunHistory> read_run_history(const std::string& folder);

}  // namespace bitnet
