// Two binaries in turn, for `bitnet bench report --against`; a saved report beside this one, for --baseline.
#include "base/file.h"
#include "base/thread_pool.h"
#include "bench_report.h"
#include "child_process.h"
#include "format/json.h"
#include "interrupt.h"
#include "progress.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace bitnet::cli {
namespace {

constexpr double kBaselineConfidence = 0.95;
constexpr uint64_t kMaxBaselineBytes = uint64_t{64} << 20;

Result<std::string> own_binary() {
  std::error_code failure;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure)
    return unsupported("--against: this system does not tell where this program lies: {}", failure.message());
  return path.string();
}

// One call of `bitnet bench`: a prompt and generation, or generation at another depth alone.
struct Call {
  std::string model;
  int64_t n_prompt = 0, depth = 1;
};

class PairedBench {
 public:
  explicit PairedBench(const SpeedReportOptions& options)
      : options_(options), n_threads_(options.threads.empty() ? available_cpus() : options.threads.back()) {
    const int64_t n_prompt = options.prompts.empty() ? 64 : options.prompts.back();
    const std::vector<int64_t> depths = options.depths.empty() ? std::vector<int64_t>{1} : options.depths;
    for (const std::string& model : options.models) {
      for (size_t i = 0; i < depths.size(); ++i) calls_.push_back({model, i == 0 ? n_prompt : 0, depths[i]});
      n_tests_ += depths.size() + 1;
    }
  }

  Result<std::vector<PairedRuns>> run() {
    const double confidence = 1 - kFamilyError / double(n_tests_);
    if (const int64_t least = least_pairs(confidence); options_.n_pairs < least) {
      return invalid_argument("--pairs {}: {} tests need at least {} pairs for a verdict", options_.n_pairs, n_tests_,
                              least);
    }
    BN_ASSIGN_OR_RETURN(const std::string own, own_binary());
    const InterruptScope scope;
    Progress progress("Comparing");
    for (int pair = 0; pair < options_.n_pairs; ++pair) {
      for (size_t i = 0; i < calls_.size(); ++i) {
        const bool own_first = pair % 2 == 0;
        BN_RETURN_IF_ERROR(run_once(own_first ? own : options_.against, own_first, calls_[i]));
        BN_RETURN_IF_ERROR(run_once(own_first ? options_.against : own, !own_first, calls_[i]));
        progress.update((pair + double(i + 1) / double(calls_.size())) / options_.n_pairs);
      }
    }
    for (PairedRuns& runs : runs_) runs.result = compare_paired(runs.other, runs.own, confidence);
    return std::move(runs_);
  }

 private:
  // The flags are those that every version of `bitnet bench` knows.
  Status run_once(const std::string& binary, bool own, const Call& call) {
    std::vector<std::string> command = {binary,  "bench",
                                        "-m",    call.model,
                                        "-p",    std::to_string(call.n_prompt),
                                        "-n",    std::to_string(options_.n_generate),
                                        "-t",    std::to_string(n_threads_),
                                        "-d",    std::to_string(call.depth),
                                        "--kv",  options_.kv,
                                        "-r",    "1",
                                        "--json"};
    BN_ASSIGN_OR_RETURN(const std::string text, output_of(command));
    BN_ASSIGN_OR_RETURN(const Json document, parse_json(text, binary + " bench --json"));
    const std::string where = binary + " bench --json";
    if (!document.is_object() || !document.contains("results") || !document["results"].is_array()) {
      return invalid_input("{}: has no \"results\"", where);
    }
    BN_ASSIGN_OR_RETURN(const std::string hash, json_string(document, "logits_hash", where));
    for (const Json& entry : document["results"]) {
      if (!entry.is_object()) return invalid_input("{}: a result is not an object", where);
      BN_ASSIGN_OR_RETURN(const std::string test, json_string(entry, "test", where));
      BN_ASSIGN_OR_RETURN(const double speed, json_number(entry, "tokens_per_s", where));
      if (!(speed > 0) || !std::isfinite(speed)) return invalid_input("{}: {} has the speed {}", where, test, speed);
      PairedRuns& runs = find(call, test);
      (own ? runs.own : runs.other).push_back(speed);
      std::string& seen = hashes_[size_t(&runs - runs_.data())];
      if (!seen.empty() && seen != hash) runs.same_logits = false;
      seen = hash;
    }
    return ok();
  }

  PairedRuns& find(const Call& call, const std::string& test) {
    const std::string name = model_name(call.model);
    for (PairedRuns& runs : runs_) {
      if (runs.model == name && runs.test == test) return runs;
    }
    PairedRuns runs;
    runs.model = name;
    runs.test = test;
    runs.n_threads = n_threads_;
    runs_.push_back(std::move(runs));
    hashes_.emplace_back();
    return runs_.back();
  }

  const SpeedReportOptions& options_;
  const int n_threads_;
  std::vector<Call> calls_;
  size_t n_tests_ = 0;
  std::vector<PairedRuns> runs_;
  std::vector<std::string> hashes_;  // the last one of each test
};

Result<std::vector<double>> positive_samples(const Json& entry, const std::string& where) {
  const auto found = entry.find("samples");
  if (found == entry.end() || !found->is_array() || found->empty()) {
    return invalid_input("{}: \"samples\" is not an array of numbers", where);
  }
  std::vector<double> samples;
  for (const Json& value : *found) {
    const double number = value.is_number() ? value.get<double>() : 0;
    if (!(number > 0) || !std::isfinite(number)) return invalid_input("{}: a sample is not a positive number", where);
    samples.push_back(number);
  }
  return samples;
}

// Adds the changes of one saved measurement, if it was measured now, too.
Status compare_measurement(const Json& entry, const std::string& model, const std::string& where, SpeedReport& report) {
  if (!entry.is_object()) return invalid_input("{}: a measurement is not an object", where);
  BN_ASSIGN_OR_RETURN(const std::string test, json_string(entry, "test", where));
  BN_ASSIGN_OR_RETURN(const std::string kernels, json_string(entry, "kernels", where));
  BN_ASSIGN_OR_RETURN(const int64_t n_threads, json_int(entry, "threads", where, 1, 1024));
  const auto speed = entry.find("tokens_per_s");
  if (speed == entry.end() || !speed->is_object()) return invalid_input("{}: \"tokens_per_s\" is not an object", where);
  BN_ASSIGN_OR_RETURN(const std::vector<double> before, positive_samples(*speed, where + " " + test));
  for (const ModelSpeed& now : report.models) {
    for (const Measurement& m : now.measurements) {
      if (now.name != model || m.test != test || m.kernels != kernels || m.n_threads != n_threads) continue;
      BaselineChange change{model, test, kernels, m.n_threads, median(before), median(m.speeds), {}, 0};
      change.ratio = bootstrap_median_ratio(before, m.speeds, kBaselineConfidence);
      const auto share = entry.find("share_of_ceiling");
      if (share != entry.end() && share->is_number() && share->get<double>() > 0 && !m.shares.empty()) {
        change.share_ratio = median(m.shares) / share->get<double>();
      }
      report.changes.push_back(std::move(change));
    }
  }
  return ok();
}

}  // namespace

const char* severity_name(double ratio) {
  const double loss = 1 - ratio;
  return loss < 0.05 ? "slight" : loss < 0.15 ? "minor" : loss < 0.3 ? "moderate" : loss < 0.5 ? "severe" : "critical";
}

Result<std::vector<PairedRuns>> run_pairs(const SpeedReportOptions& options) { return PairedBench(options).run(); }

Status compare_with_baseline(const std::string& path, SpeedReport& report) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxBaselineBytes));
  BN_ASSIGN_OR_RETURN(const Json document, parse_json(text, path));
  if (!document.is_object() || document.value("format", Json()) != "bitnet-bench-report") {
    return invalid_input("{}: not what 'bench report --save' wrote: \"format\" is not \"bitnet-bench-report\"", path);
  }
  const auto models = document.find("models"), machine = document.find("machine"), build = document.find("build");
  if (models == document.end() || !models->is_array()) return invalid_input("{}: \"models\" is not an array", path);
  if (machine == document.end() || !machine->is_object() || build == document.end() || !build->is_object()) {
    return invalid_input("{}: \"machine\" or \"build\" is not an object", path);
  }
  report.baseline = std::filesystem::path(path).filename().string();
  BN_ASSIGN_OR_RETURN(report.baseline_machine, json_string(*machine, "cpu", path));
  BN_ASSIGN_OR_RETURN(report.baseline_commit, json_string(*build, "commit", path));
  for (const Json& model : *models) {
    if (!model.is_object()) return invalid_input("{}: a model is not an object", path);
    BN_ASSIGN_OR_RETURN(const std::string name, json_string(model, "name", path));
    const auto measurements = model.find("measurements");
    if (measurements == model.end() || !measurements->is_array()) {
      return invalid_input("{}: {}: \"measurements\" is not an array", path, name);
    }
    for (const Json& entry : *measurements) {
      BN_RETURN_IF_ERROR(compare_measurement(entry, name, path + ": " + name, report));
    }
  }
  if (report.changes.empty()) return invalid_input("{}: holds none of the tests that ran now", path);
  return ok();
}

}  // namespace bitnet::cli
