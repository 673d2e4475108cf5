// The measurements of `bitnet bench`.
#include "bench.h"
#include "hash.h"
#include "interrupt.h"
#include "model/model.h"
#include "progress.h"
#include "runtime/sampler.h"
#include "verify_checks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

namespace bitnet::cli {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Bench {
 public:
  Bench(const Model& model, const BenchSizes& sizes, MachineMeter& meter)
      : model_(model),
        sizes_(sizes),
        meter_(meter),
        ids_(fixed_ids(std::max({sizes.n_prompt, sizes.depth, int64_t{1}}), model.info().vocab_size)) {}

  // What the last test of each kind spends where, if whole steps are to be told apart.
  Status add_step_phases(BenchReport& report) {
    if (!sizes_.step_phases || report.results.empty()) return ok();
    const KvType kv_type = sizes_.session.kv_type;
    for (BenchResult& result : report.results) {
      const bool prompt = result.test.starts_with("pp");
      const int64_t n_tokens = prompt ? std::min(sizes_.n_prompt, sizes_.session.chunk) : 1;
      const int64_t position = prompt ? 0 : sizes_.depth + sizes_.n_generate / 2;
      BN_ASSIGN_OR_RETURN(result.step_phases,
                          measure_phases(model_, kv_type, prompt ? 1 : sizes_.batch, n_tokens, position));
    }
    return ok();
  }

  Result<BenchReport> run() {
    const int n_rounds = sizes_.repetitions + 1;  // the first one warms up and is not counted
    Progress progress("Measuring");
    for (int round = 0; round < n_rounds; ++round) {
      for (size_t i = 0; i < sizes_.threads.size(); ++i) {
        if (interrupted()) return interrupted_error();
        BN_RETURN_IF_ERROR(run_once(sizes_.threads[i], round > 0));
        progress.update((round + double(i + 1) / double(sizes_.threads.size())) / n_rounds);
      }
    }
    BenchReport done = report();
    BN_RETURN_IF_ERROR(add_step_phases(done));
    return done;
  }

 private:
  using Phases = std::vector<TimedBackend::Phase>;
  struct Samples {
    std::vector<double> prompt, generate, read, int8, copy;
    double bytes_per_token = 0;  // of weights, generating
    Phases prompt_phases, generate_phases;
  };

  // A session per run: two thread teams at once would share the processors.
  Status run_once(int n_threads, bool count) {
    SessionOptions options = sizes_.session;
    options.n_threads = n_threads;
    options.n_ctx = std::max<int64_t>({2, sizes_.n_prompt, sizes_.n_generate + sizes_.depth});
    BN_ASSIGN_OR_RETURN(Session session, model_.new_session(options));
    const InterruptScope scope(&session);
    session.want_logits(1);
    double prompt = 0, generate = 0;
    std::vector<Sampler::Candidate> best;
    BN_RETURN_IF_ERROR(time_prompt(session, prompt, best));
    const Phases prompt_phases = take_phases(sizes_.n_prompt);
    double bytes_per_token = 0;
    BN_RETURN_IF_ERROR(time_generation(session, generate, bytes_per_token, best));
    const Phases generate_phases = take_phases(sizes_.n_generate);
    BN_RETURN_IF_ERROR(check_hash(best));
    peak_rss_bytes_ = peak_rss_bytes();
    BN_ASSIGN_OR_RETURN(const MachineLimits limits, measure_limits(n_threads));
    if (!count) return ok();
    Samples& samples = samples_[n_threads];
    samples.prompt_phases = prompt_phases;
    samples.generate_phases = generate_phases;
    samples.bytes_per_token = bytes_per_token > 0 ? bytes_per_token : double(model_.info().bytes_per_token);
    samples.prompt.push_back(prompt);
    samples.generate.push_back(generate);
    samples.read.push_back(limits.read_gb_per_s);
    samples.int8.push_back(limits.int8_gops_per_s);
    samples.copy.push_back(limits.copy_gb_per_s);
    return ok();
  }

  // The meter knows the processor only.
  Result<MachineLimits> measure_limits(int n_threads) {
    if (model_.impl()->backend->host_memory()) return meter_.measure(n_threads);
    BN_ASSIGN_OR_RETURN(const DeviceLimits device, model_.impl()->backend->measure_limits());
    return MachineLimits{device.read_gb_per_s, device.int8_gops_per_s, device.copy_gb_per_s};
  }

  Status time_prompt(Session& session, double& tokens_per_s, std::vector<Sampler::Candidate>& best) {
    session.reset();
    const auto prompt = std::span(ids_).first(size_t(std::max<int64_t>(sizes_.n_prompt, 1)));
    const Clock::time_point start = Clock::now();
    BN_RETURN_IF_ERROR(session.append(prompt));
    tokens_per_s = double(prompt.size()) / seconds_since(start);
    best.push_back(Sampler::largest(session.logits()));
    return ok();
  }

  // Per token, and forgotten by the back end.
  Phases take_phases(int64_t n_tokens) {
    if (sizes_.timed == nullptr || n_tokens == 0) return {};
    Phases phases = sizes_.timed->phases();
    sizes_.timed->reset();
    for (TimedBackend::Phase& phase : phases) {
      phase.seconds /= double(n_tokens);
      phase.weight_bytes /= uint64_t(n_tokens);
    }
    return phases;
  }

  Status check_hash(const std::vector<Sampler::Candidate>& best) {
    LogitsHash hash;
    for (const Sampler::Candidate& b : best) {
      const float values[2] = {float(b.id), b.logit};
      hash.add(values);
    }
    if (!hash_.empty() && hash.hex() != hash_) {
      return make_error(ErrorCode::kInternal, "The same tokens gave other logits: hash {} and {}.", hash_, hash.hex());
    }
    hash_ = hash.hex();
    return ok();
  }

  // Greedy text after `depth` tokens: what the model's own words make it compute. What the prompt test left in the
  // cache need not be computed again.
  Status time_generation(Session& session, double& tokens_per_s, double& bytes_per_token,
                         std::vector<Sampler::Candidate>& best) {
    if (sizes_.n_generate == 0) return ok();
    if (sizes_.batch > 1) {
      BN_ASSIGN_OR_RETURN(tokens_per_s, time_batch(model_, sizes_, ids_, best));
      bytes_per_token = double(model_.info().bytes_per_token) / double(sizes_.batch);
      return ok();
    }
    const int64_t n_there = std::min(session.n_past(), sizes_.depth);
    BN_RETURN_IF_ERROR(session.truncate(n_there));
    BN_RETURN_IF_ERROR(session.append(std::span(ids_).subspan(size_t(n_there), size_t(sizes_.depth - n_there))));
    if (sizes_.timed != nullptr) sizes_.timed->reset();
    const uint64_t bytes_before = session.weight_bytes_read();
    const Clock::time_point start = Clock::now();
    for (int64_t i = 0; i < sizes_.n_generate; ++i) {
      best.push_back(Sampler::largest(session.logits()));
      BN_RETURN_IF_ERROR(session.append({&best.back().id, 1}));
    }
    tokens_per_s = double(sizes_.n_generate) / seconds_since(start);
    bytes_per_token = double(session.weight_bytes_read() - bytes_before) / double(sizes_.n_generate);
    return ok();
  }

  std::string generation_name() const {
    return fmt::format("tg{}", sizes_.n_generate) + (sizes_.batch > 1 ? fmt::format(" x{}", sizes_.batch) : "") +
           (sizes_.depth > 1 ? fmt::format(" @ d{}", sizes_.depth) : "");
  }

  BenchReport report() const {
    BenchReport report;
    report.logits_hash = hash_;
    report.peak_rss_bytes = peak_rss_bytes_;
    const double ops = double(model_.info().ops_per_token);
    for (const int n_threads : sizes_.threads) {
      const Samples& samples = samples_.at(n_threads);
      report.limits.push_back({median(samples.read), median(samples.int8), median(samples.copy)});
      // A prompt is bound by arithmetic, generation by reading the weights.
      if (sizes_.n_prompt > 0) {
        report.results.push_back(
            result(fmt::format("pp{}", sizes_.n_prompt), n_threads, samples.prompt, samples.int8, ops / 1e9));
        report.results.back().bytes_per_token = double(model_.info().bytes_per_token);
        report.results.back().phases = samples.prompt_phases;
      }
      if (sizes_.n_generate > 0) {
        report.results.push_back(
            result(generation_name(), n_threads, samples.generate, samples.read, samples.bytes_per_token / 1e9));
        report.results.back().bytes_per_token = samples.bytes_per_token;
        report.results.back().phases = samples.generate_phases;
      }
    }
    return report;
  }

  // `capacity`: what the machine does a second; `need`: what a token takes of it.
  BenchResult result(std::string test, int n_threads, const std::vector<double>& speeds,
                     const std::vector<double>& capacity, double need) const {
    BenchResult r;
    r.test = std::move(test);
    r.n_threads = n_threads;
    r.speeds = speeds;
    if (need <= 0 || median(capacity) <= 0) return r;
    r.limit = median(capacity) / need;
    for (size_t i = 0; i < speeds.size(); ++i) {
      if (capacity[i] > 0) r.share_of_limit.push_back(speeds[i] * need / capacity[i]);
    }
    return r;
  }

  const Model& model_;
  const BenchSizes& sizes_;
  MachineMeter& meter_;
  const std::vector<int32_t> ids_;  // of the prompt and what fills the cache
  std::map<int, Samples> samples_;
  std::string hash_;
  unsigned long long peak_rss_bytes_ = 0;
};

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / double(values.size());
}

double standard_deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double average = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - average) * (value - average);
  return std::sqrt(sum / double(values.size() - 1));
}

Result<BenchReport> run_bench(const Model& model, const BenchSizes& sizes, MachineMeter& meter) {
  return Bench(model, sizes, meter).run();
}

}  // namespace bitnet::cli
