#pragma once

#include "bench.h"
#include "report/document.h"
#include "report/machine_facts.h"
#include "report/statistics.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet::cli {

// What `bitnet bench report` is to measure.
struct SpeedReportOptions {
  std::vector<std::string> models;
  std::vector<int> threads;       // ascending; empty: 1, 2, 4, ... and all processors
  std::vector<int64_t> prompts;   // tokens; empty: 64 and 512, or what the model's context holds
  std::vector<int64_t> depths;    // tokens in the cache before generation; empty: 1 and 512, or what fits
  std::vector<std::string> isas;  // besides the chosen one; empty: all usable but the generic one
  int64_t n_generate = 64;
  int n_rounds = 10;  // 0: no set of measurements, only the pairs
  bool phases = true;
  std::string kv = "f16";
  std::string against;  // another binary, run in turn with this one
  int n_pairs = 12;
};

std::string model_name(const std::string& path);  // its file's without .gguf, or its folder's

// One test on one number of threads with one instruction set; samples in the order of the rounds.
struct Measurement {
  std::string test;  // "pp512", "tg64 @ d448"
  bool prompt = false;
  int n_threads = 1;
  std::string kernels;
  std::vector<double> speeds;  // tokens/s
  std::vector<double> shares;  // of what the machine could do beside that round; empty: unknown
  std::vector<double> joules;  // a token; empty: not told by this machine
  double bytes_per_token = 0;  // of weights read
};

struct ModelSpeed {
  ModelInfo info;
  std::string name;  // of its file or folder
  std::vector<Measurement> measurements;
  int phase_threads = 0;
  int64_t phase_prompt = 0;                                         // tokens
  std::vector<TimedBackend::Phase> prompt_phases, generate_phases;  // a token, medians of some runs
};

struct Ceiling {
  int n_threads = 1;
  std::vector<double> read_gb_per_s, int8_gops_per_s;
};

// A measurement beside the same one of a saved report.
struct BaselineChange {
  std::string model, test, kernels;
  int n_threads = 1;
  double before = 0, now = 0;  // tokens/s, medians
  Interval ratio;              // now / before, 95% by bootstrap
  double share_ratio = 0;      // of the shares of the ceilings; 0: unknown
};

// A test that two binaries ran in turn.
struct PairedRuns {
  std::string model, test;
  int n_threads = 1;
  std::vector<double> other, own;  // tokens/s, one a pair
  PairedComparison result;         // own / other
  bool same_logits = true;
};

struct SpeedReport {
  std::string date, commit, compiler, flags;
  MachineFacts machine;
  int n_threads = 0;              // that this process may use
  std::vector<std::string> isas;  // usable here, best first
  std::string energy;             // which counters were read, or why none were
  std::vector<Ceiling> ceilings;
  std::vector<ModelSpeed> models;
  std::string baseline;  // file; empty: none
  std::string baseline_machine, baseline_commit;
  std::vector<BaselineChange> changes;
  std::string against;  // binary; empty: none
  std::vector<PairedRuns> pairs;
};

// Of all pairs together: an equal binary is reported different in at most 5% of sessions.
inline constexpr double kFamilyError = 0.05;
const char* severity_name(
    double ratio);  // of a loss: "slight" below 5%, "minor", "moderate" 15%, "severe" 30%, "critical"

Result<SpeedReport> measure_speed(const Invocation& invocation, const SpeedReportOptions& options);
// Measures `options.models` with both binaries.
Result<std::vector<PairedRuns>> run_pairs(const SpeedReportOptions& options);
// Compares with what save_speed_report() wrote.
Status compare_with_baseline(const std::string& path, SpeedReport& report);

OrderedJson to_json(const SpeedReport& report);
ReportDocument to_document(const SpeedReport& report, const std::string& command);
std::string for_people(const SpeedReport& report);

}  // namespace bitnet::cli
