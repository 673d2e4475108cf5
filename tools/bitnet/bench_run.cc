// The measurements of `bitnet bench`.
#include "bench.h"
#include "hash.h"
#include "interrupt.h"
#include "model/model.h"
#include "progress.h"
#include "report/statistics.h"
#include "runtime/sampler.h"
#include "verify_checks.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

namespace bitnet::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Time and energy from here on.
class Stopwatch {
 public:
  explicit Stopwatch(const EnergyMeter* energy)
      : energy_(energy), reading_(energy != nullptr ? energy->read() : std::nullopt), start_(Clock::now()) {}
  void stop(int64_t n_tokens, double& tokens_per_s, std::optional<double>& joules_per_token) const {
    tokens_per_s = double(n_tokens) / std::chrono::duration<double>(Clock::now() - start_).count();
    if (!reading_) return;
    if (const std::optional<double> joules = energy_->joules_since(*reading_)) {
      joules_per_token = *joules / double(n_tokens);
    }
  }

 private:
  const EnergyMeter* energy_;
  std::optional<EnergyMeter::Reading> reading_;
  Clock::time_point start_;
};

// A session per run: two thread teams at once would share the processors.
class Run {
 public:
  Run(const Model& model, const BenchSizes& sizes, std::span<const int32_t> ids)
      : model_(model), sizes_(sizes), ids_(ids) {}

  Result<BenchRun> run(int n_threads) {
    SessionOptions options = sizes_.session;
    options.n_threads = n_threads;
    options.n_ctx = std::max<int64_t>({2, sizes_.n_prompt, sizes_.n_generate + sizes_.depth});
    BN_ASSIGN_OR_RETURN(Session session, model_.new_session(options));
    const InterruptScope scope(&session);
    session.want_logits(1);
    BN_RETURN_IF_ERROR(time_prompt(session));
    done_.prompt_phases = take_phases(sizes_.n_prompt);
    BN_RETURN_IF_ERROR(time_generation(session));
    done_.generate_phases = take_phases(sizes_.n_generate);
    return std::move(done_);
  }

 private:
  Status time_prompt(Session& session) {
    session.reset();
    const auto prompt = ids_.first(size_t(std::max<int64_t>(sizes_.n_prompt, 1)));
    const Stopwatch watch(sizes_.energy);
    BN_RETURN_IF_ERROR(session.append(prompt));
    watch.stop(int64_t(prompt.size()), done_.prompt, done_.prompt_joules);
    done_.best.push_back(Sampler::largest(session.logits()));
    return ok();
  }

  // Per token, and forgotten by the back end.
  std::vector<TimedBackend::Phase> take_phases(int64_t n_tokens) {
    if (sizes_.timed == nullptr || n_tokens == 0) return {};
    std::vector<TimedBackend::Phase> phases = sizes_.timed->phases();
    sizes_.timed->reset();
    for (TimedBackend::Phase& phase : phases) {
      phase.seconds /= double(n_tokens);
      phase.weight_bytes /= uint64_t(n_tokens);
    }
    return phases;
  }

  // Greedy text after `depth` tokens: what the model's own words make it compute. What the prompt test left in the
  // cache need not be computed again.
  Status time_generation(Session& session) {
    if (sizes_.n_generate == 0) return ok();
    if (sizes_.batch > 1) {
      BN_ASSIGN_OR_RETURN(done_.generate, time_batch(model_, sizes_, ids_, done_.best));
      done_.bytes_per_token = double(model_.info().bytes_per_token) / double(sizes_.batch);
      return ok();
    }
    if (sizes_.sampled) session.want_logits(Sampler::n_best(SamplingOptions()));
    const int64_t n_there = std::min(session.n_past(), sizes_.depth);
    BN_RETURN_IF_ERROR(session.truncate(n_there));
    BN_RETURN_IF_ERROR(session.append(ids_.subspan(size_t(n_there), size_t(sizes_.depth - n_there))));
    if (sizes_.sampled) return time_sampling(session);
    if (sizes_.timed != nullptr) sizes_.timed->reset();
    const uint64_t bytes_before = session.weight_bytes_read();
    const Stopwatch watch(sizes_.energy);
    for (int64_t i = 0; i < sizes_.n_generate; ++i) {
      done_.best.push_back(Sampler::largest(session.logits()));
      BN_RETURN_IF_ERROR(session.append({&done_.best.back().id, 1}));
    }
    watch.stop(sizes_.n_generate, done_.generate, done_.generate_joules);
    done_.bytes_per_token = double(session.weight_bytes_read() - bytes_before) / double(sizes_.n_generate);
    return ok();
  }

  // The same with tokens drawn by the default options, as generate() does it.
  Status time_sampling(Session& session) {
    GenerateOptions options;
    options.max_new_tokens = sizes_.n_generate;
    options.sampling.seed = 1;
    options.ignore_eos = true;
    const Stopwatch watch(sizes_.energy);
    BN_ASSIGN_OR_RETURN(const Output output, generate(session, std::span<const int32_t>(), options));
    watch.stop(int64_t(output.ids.size()), done_.generate, done_.generate_joules);
    for (const int32_t id : output.ids) done_.best.push_back({0.0f, id});
    return ok();
  }

  const Model& model_;
  const BenchSizes& sizes_;
  const std::span<const int32_t> ids_;
  BenchRun done_;
};

class Bench {
 public:
  Bench(const Model& model, const BenchSizes& sizes, MachineMeter& meter)
      : model_(model), sizes_(sizes), meter_(meter), ids_(bench_ids(model, sizes)) {}

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

  Status run_once(int n_threads, bool count) {
    BN_ASSIGN_OR_RETURN(const BenchRun run, run_bench_once(model_, sizes_, n_threads, ids_));
    BN_RETURN_IF_ERROR(check_hash(run.best));
    peak_rss_bytes_ = peak_rss_bytes();
    BN_ASSIGN_OR_RETURN(const MachineLimits limits, measure_limits(n_threads));
    if (!count) return ok();
    Samples& samples = samples_[n_threads];
    samples.prompt_phases = run.prompt_phases;
    samples.generate_phases = run.generate_phases;
    samples.bytes_per_token = run.bytes_per_token > 0 ? run.bytes_per_token : double(model_.info().bytes_per_token);
    samples.prompt.push_back(run.prompt);
    samples.generate.push_back(run.generate);
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

  Status check_hash(const std::vector<Sampler::Candidate>& best) {
    LogitsHash hash;
    add_to(hash, best);
    if (!hash_.empty() && hash.hex() != hash_) {
      return make_error(ErrorCode::kInternal, "The same tokens gave other logits: hash {} and {}.", hash_, hash.hex());
    }
    hash_ = hash.hex();
    return ok();
  }

  std::string generation_name() const {
    return fmt::format("tg{}", sizes_.n_generate) + (sizes_.batch > 1 ? fmt::format(" x{}", sizes_.batch) : "") +
           (sizes_.sampled ? " sampled" : "") + (sizes_.depth > 1 ? fmt::format(" @ d{}", sizes_.depth) : "");
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

void name_matrices(const ModelImpl& model, TimedBackend& timed) {
  timed.name_matrix(*model.token_embedding, "head");
  if (model.output) timed.name_matrix(*model.output, "head");
  for (const LayerWeights& layer : model.layers) {
    timed.name_matrix(*layer.q.weight, "q, k, v");
    timed.name_matrix(*layer.o.weight, "o");
    timed.name_matrix(*layer.gate.weight, "gate");
    timed.name_matrix(*layer.up.weight, "up");
    timed.name_matrix(*layer.down.weight, "down");
  }
}

std::vector<int32_t> bench_ids(const Model& model, const BenchSizes& sizes) {
  return fixed_ids(std::max({sizes.n_prompt, sizes.depth, int64_t{1}}), model.info().vocab_size);
}

void add_to(LogitsHash& hash, std::span<const Sampler::Candidate> best) {
  for (const Sampler::Candidate& b : best) {
    const float values[2] = {float(b.id), b.logit};
    hash.add(values);
  }
}

Result<BenchRun> run_bench_once(const Model& model, const BenchSizes& sizes, int n_threads,
                                std::span<const int32_t> ids) {
  return Run(model, sizes, ids).run(n_threads);
}

Result<BenchReport> run_bench(const Model& model, const BenchSizes& sizes, MachineMeter& meter) {
  return Bench(model, sizes, meter).run();
}

}  // namespace bitnet::cli
