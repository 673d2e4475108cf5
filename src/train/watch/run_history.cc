#include "train/watch/run_history.h"

#include "base/file.h"
#include "format/json.h"
#include "train/watch/log_lines.h"

#include <algorithm>
#include <filesystem>
#include <limits>

namespace bitnet {
namespace {

Result<Json> parse_line(const LogLine& line, const std::string& path) {
  const std::string name = fmt::format("{}: line {}", path, line.number);
  BN_ASSIGN_OR_RETURN(Json json, parse_json(line.text, name));
  BN_RETURN_IF_ERROR(json_number(json, "time_s", name));
  return json;
}

// Calls fn(step, object) for each line.
template <class Fn>
Status for_each_entry(const std::string& path, Fn fn) {
  Status status = ok();
  BN_RETURN_IF_ERROR(for_each_log_line(path, [&](const LogLine& line) {
    if (!line.is_whole) return true;
    Result<Json> json = parse_line(line, path);
    if (json) {
      fn(line.step, *json);
      return true;
    }
    status = std::move(json.error());
    return false;
  }));
  return status;
}

}  // namespace

Result<RunHistory> read_run_history(const std::string& folder) {
  RunHistory history;
  const std::string metrics = folder + "/" + kMetricsFile, samples = folder + "/" + kSamplesFile;
  std::error_code ignored;
  if (!std::filesystem::exists(metrics, ignored)) {
    Error error = invalid_input("{}: is no folder of a training run: there is no {} in it", folder, kMetricsFile);
    error.suggestion = "give the folder that `bitnet train` writes its checkpoints and metrics to";
    return error;
  }
  BN_RETURN_IF_ERROR(for_each_entry(metrics, [&](int64_t step, const Json& json) {
    for (const auto& [name, value] : json.items()) {
      if (name == "step" || name == "time_s" || (!value.is_number() && !value.is_null())) continue;
      RunHistory::Series& series = history.series[name];
      series.steps.push_back(double(step));
      series.values.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>());
    }
    history.last_time_s = json["time_s"].get<double>();
    if (history.first_time_s == 0) history.first_time_s = history.last_time_s;
    history.last_step = std::max(history.last_step, step);
  }));
  if (!std::filesystem::exists(samples, ignored)) return history;
  BN_RETURN_IF_ERROR(for_each_entry(samples, [&](int64_t step, const Json& json) {
    const auto text_of = [&](const char* key) {
      const auto found = json.find(key);
      return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    history.samples.push_back({step, text_of("name"), text_of("text")});
  }));
  return history;
}

}  // namespace bitnet
