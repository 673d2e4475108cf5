#include "train/watch/metrics_log.h"

#include "base/file.h"
#include "format/json.h"
#include "format/text.h"
#include "train/watch/log_lines.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

namespace bitnet {
namespace {

double wall_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string quoted(std::string_view text) {
  return Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string line_start(int64_t step, double time_s) {
  return fmt::format("{}{}, \"time_s\": {:.3f}", kLogLineStart, step, time_s);
}

// Opens a log behind the last whole line whose step is not above `resume_step`.
Result<AppendFile> open_log(const std::string& path, int64_t resume_step) {
  BN_ASSIGN_OR_RETURN(AppendFile file, AppendFile::open(path));
  uint64_t kept_bytes = 0;
  BN_RETURN_IF_ERROR(for_each_log_line(path, [&](const LogLine& line) {
    if (!line.is_whole || line.step > resume_step) return false;
    kept_bytes = line.end_byte;
    return true;
  }));
  BN_RETURN_IF_ERROR(file.truncate(kept_bytes));
  return file;
}

}  // namespace

Result<MetricsLog> MetricsLog::open(const std::string& folder, int64_t resume_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return make_error(ErrorCode::kResource, "{}: cannot create the folder: {}", folder, error.message());
  BN_ASSIGN_OR_RETURN(AppendFile metrics, open_log(folder + "/" + kMetricsFile, resume_step));
  BN_ASSIGN_OR_RETURN(AppendFile samples, open_log(folder + "/" + kSamplesFile, resume_step));
  BN_ASSIGN_OR_RETURN(EventFile events, EventFile::create(folder, wall_time_s(), resume_step + 1));
  return MetricsLog(std::move(metrics), std::move(samples), std::move(events));
}

Status MetricsLog::log(int64_t step, std::span<const Metric> metrics) {
  const double time_s = wall_time_s();
  std::string line = line_start(step, time_s);
  for (size_t i = 0; i < metrics.size(); ++i) {
    const std::string_view name = metrics[i].name;
    const double value = metrics[i].value;
    const bool taken = std::any_of(metrics.begin(), metrics.begin() + ptrdiff_t(i),
                                   [&](const Metric& other) { return other.name == name; });
    if (name.empty() || name == "step" || name == "time_s" || taken || !is_utf8(name)) {
      return invalid_argument("{}: {} cannot be the name of a metric here", metrics_.path(), quote_name(name));
    }
    line += fmt::format(", {}: {}", quoted(name), std::isfinite(value) ? fmt::format("{}", value) : "null");
  }
  BN_RETURN_IF_ERROR(metrics_.append(line + "}\n"));
  return events_.write_scalars(step, time_s, metrics);
}

Status MetricsLog::log_text(int64_t step, std::string_view name, std::string_view text) {
  const double time_s = wall_time_s();
  BN_RETURN_IF_ERROR(samples_.append(
      fmt::format("{}, \"name\": {}, \"text\": {}}}\n", line_start(step, time_s), quoted(name), quoted(text))));
  return events_.write_text(step, time_s, name, text);
}

}  // namespace bitnet
