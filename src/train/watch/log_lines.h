#pragma once

#include "base/result.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace bitnet {

inline constexpr const char* kMetricsFile = "metrics.jsonl";
inline constexpr const char* kSamplesFile = "samples.jsonl";
inline constexpr std::string_view kLogLineStart = "{\"step\": ";  // and the step: each line begins so

struct LogLine {
  std::string_view text;  // without its line break; valid during the call
  int64_t number = 0;     // from 1
  int64_t step = 0;
  uint64_t end_byte = 0;  // of the file, behind the line break
  bool is_whole = true;   // false: the last line, if it was cut off
};

// Calls fn for each line until it answers false. A file of any length is read in bounded memory. A line that does not
// begin as ours do is an error, unless it is the last one and cut off.
Status for_each_log_line(const std::string& path, const std::function<bool(const LogLine&)>& fn);

}  // namespace bitnet
