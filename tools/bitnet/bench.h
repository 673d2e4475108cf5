#pragma once

#include "base/copied.h"
#include "cli.h"
#include "hash.h"
#include "machine.h"
#include "output.h"

#include "bitnet/model.h"
#include "bitnet/session.h"
#include "kernels/fused_model.h"
#include "kernels/timed_backend.h"
#include "report/energy.h"
#include "runtime/sampler.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bitnet::cli {

struct BenchSizes {
  int64_t n_prompt = 512;
  int64_t n_generate = 64;
  int64_t depth = 1;     // tokens in the cache when the generation test starts
  int64_t batch = 1;     // sequences that the generation test advances together
  bool sampled = false;  // tokens drawn by the default sampling options instead of the best ones
  int repetitions = 5;
  std::vector<int> threads;
  SessionOptions session;         // n_threads and n_ctx are set for each test
  TimedBackend* timed = nullptr;  // the model's, if its operations are to be told apart
  bool step_phases = false;       // or the kernels of its whole steps
  const EnergyMeter* energy = nullptr;
};

// One test, "pp512" or "tg64", on one number of threads.
struct BenchResult {
  std::string test;
  int n_threads = 1;
  std::vector<double> speeds;          // tokens/s of each repetition
  std::vector<double> share_of_limit;  // of what the machine could do beside that repetition; empty: unknown
  double bytes_per_token = 0;
  double limit = 0;  // tokens/s that the machine's limit allows, median
  // What its last run spent where, in seconds and bytes of weights a token; empty unless asked for.
  std::vector<TimedBackend::Phase> phases;
  std::vector<StepPhase> step_phases;  // the same of a device that runs whole steps
};

struct BenchReport {
  std::vector<BenchResult> results;
  std::vector<MachineLimits> limits;  // one a thread count, medians
  double load_s = 0;
  double first_token_s = 0;  // from the beginning of loading to the first token's logits
  std::string logits_hash;   // of the best token and its logit after the prompt and each generated token
  unsigned long long peak_rss_bytes = 0;
  CopiedBytes load_copied, token_copied;  // by loading the model, and by one token
};

// What a prompt and then generation took once, on a session of their own.
struct BenchRun {
  double prompt = 0, generate = 0;                                  // tokens/s; 0: not measured
  double bytes_per_token = 0;                                       // of weights, generating
  std::vector<TimedBackend::Phase> prompt_phases, generate_phases;  // a token, if sizes.timed is set
  std::optional<double> prompt_joules, generate_joules;             // a token, if sizes.energy is set and knows
  std::vector<Sampler::Candidate> best;                             // after the prompt and after each generated token
};
// `ids`: the prompt, and what fills the cache; as many as the longest of these.
Result<BenchRun> run_bench_once(const Model& model, const BenchSizes& sizes, int n_threads,
                                std::span<const int32_t> ids);
std::vector<int32_t> bench_ids(const Model& model, const BenchSizes& sizes);
void add_to(LogitsHash& hash, std::span<const Sampler::Candidate> best);
// Names the products after the matrices that they begin with.
void name_matrices(const ModelImpl& model, TimedBackend& timed);

// Runs every test `repetitions` times, in turn, the machine's limits measured in between.
Result<BenchReport> run_bench(const Model& model, const BenchSizes& sizes, MachineMeter& meter);

// Greedy text of sizes.batch sequences after `depth` tokens of `ids`: tokens/s of all together, and all tokens.
Result<double> time_batch(const Model& model, const BenchSizes& sizes, std::span<const int32_t> ids,
                          std::vector<Sampler::Candidate>& found);

// The phases of one step of a fused model: n_parts sequences with n_tokens each, after `position` others.
Result<std::vector<StepPhase>> measure_phases(const Model& model, KvType kv_type, int64_t n_parts, int64_t n_tokens,
                                              int64_t position);
OrderedJson to_json(std::span<const StepPhase> phases, const MachineLimits& limits);
void print_step_phases(const std::string& test, std::span<const StepPhase> phases, const MachineLimits& limits);

void add_bench_ops(CLI::App& bench, Invocation& invocation);
void add_bench_report(CLI::App& bench, Invocation& invocation);

}  // namespace bitnet::cli
