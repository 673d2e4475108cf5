// The measurements of `bitnet bench report`.
#include "base/thread_pool.h"
#include "bench_report.h"
#include "build_info.h"
#include "interrupt.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"
#include "model/model.h"
#include "options.h"
#include "progress.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>
#include <optional>

namespace bitnet::cli {
namespace {

constexpr int64_t kChunk = 512;
constexpr int kPhaseRuns = 3;

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &utc);
  return text;
}

std::vector<int> thread_counts() {
  const int all = available_cpus();
  std::vector<int> counts;
  for (int n = 1; n < all; n *= 2) counts.push_back(n);
  counts.push_back(all);
  return counts;
}

// One of the tests, on a model that was loaded for one instruction set.
struct Case {
  Model model;  // a handle that shares the weights
  ModelSpeed* speed;
  size_t measurement;  // in speed
  BenchSizes sizes;
};

class SpeedRun {
 public:
  SpeedRun(const Invocation& invocation, const SpeedReportOptions& options)
      : invocation_(invocation), options_(options), threads_(options.threads) {
    if (threads_.empty()) threads_ = thread_counts();
  }

  Result<SpeedReport> run() {
    BN_RETURN_IF_ERROR(describe());
    if (options_.n_rounds == 0) return std::move(report_);
    meter_.emplace();  // before the first thread
    for (const int n : threads_) report_.ceilings.push_back({n, {}, {}});
    report_.models.resize(options_.models.size());
    for (size_t i = 0; i < options_.models.size(); ++i) BN_RETURN_IF_ERROR(add_model(i));
    BN_RETURN_IF_ERROR(run_rounds());
    if (options_.phases) {
      for (size_t i = 0; i < options_.models.size(); ++i) BN_RETURN_IF_ERROR(add_phases(report_.models[i]));
    }
    return std::move(report_);
  }

 private:
  Status describe() {
    report_.date = today();
    report_.commit = BITNET_COMMIT;
    report_.compiler = BITNET_COMPILER;
    report_.flags = BITNET_COMPILE_FLAGS;
    report_.machine = read_machine_facts();
    report_.n_threads = available_cpus();
    BN_ASSIGN_OR_RETURN(chosen_, choose_cpu_kernels());
    for (const CpuKernels* kernels : usable_cpu_kernels()) report_.isas.push_back(kernels->name);
    report_.energy =
        energy_.why_not().empty() ? fmt::format("RAPL: {}", fmt::join(energy_.zones(), ", ")) : energy_.why_not();
    return ok();
  }

  Result<Model> load(const std::string& path, std::unique_ptr<Backend> backend) {
    ModelFlags flags;
    flags.model = path;
    MeasuringOptions measuring;
    measuring.backend = std::move(backend);
    return load_model(invocation_, flags, Logits::kBest, {}, std::move(measuring));
  }

  std::vector<const CpuKernels*> variants() const {
    std::vector<const CpuKernels*> others;
    for (const CpuKernels* kernels : usable_cpu_kernels()) {
      const bool named = std::count(options_.isas.begin(), options_.isas.end(), kernels->name) > 0;
      const bool wanted = options_.isas.empty() ? std::string_view(kernels->name) != "generic" : named;
      if (wanted && std::string_view(kernels->name) != chosen_->name) others.push_back(kernels);
    }
    return others;
  }

  BenchSizes sizes(int64_t n_prompt, int64_t n_generate, int64_t depth) const {
    BenchSizes sizes;
    sizes.n_prompt = n_prompt;
    sizes.n_generate = n_generate;
    sizes.depth = depth;
    sizes.session.chunk = kChunk;
    sizes.session.kv_type = kv_type(options_.kv);
    sizes.energy = &energy_;
    return sizes;
  }

  Status add_model(size_t index) {
    const std::string& path = options_.models[index];
    ModelSpeed& speed = report_.models[index];
    BN_ASSIGN_OR_RETURN(const Model model, load(path, std::make_unique<CpuBackend>(*chosen_)));
    speed.info = model.info();
    speed.name = model_name(path);
    const int64_t n_ctx = std::max<int64_t>(speed.info.n_ctx_train, 2), room = n_ctx - options_.n_generate;
    prompts_ = options_.prompts;
    if (prompts_.empty()) prompts_ = {std::min<int64_t>(64, n_ctx), std::min<int64_t>(512, n_ctx)};
    depths_ = options_.depths;
    if (depths_.empty()) depths_ = {1, std::clamp<int64_t>(room, 1, 512)};
    for (std::vector<int64_t>* list : {&prompts_, &depths_}) {
      std::sort(list->begin(), list->end());
      list->erase(std::unique(list->begin(), list->end()), list->end());
    }
    speed.phase_prompt = prompts_.back();
    for (const int n_threads : threads_) add_cases(model, speed, n_threads, prompts_, depths_);
    for (const CpuKernels* kernels : variants()) {
      BN_ASSIGN_OR_RETURN(const Model variant, load(path, std::make_unique<CpuBackend>(*kernels)));
      add_cases(variant, speed, threads_.back(), {prompts_.back()}, {depths_.front()});
    }
    return ok();
  }

  void add_cases(const Model& model, ModelSpeed& speed, int n_threads, const std::vector<int64_t>& prompts,
                 const std::vector<int64_t>& depths) {
    const auto add = [&](std::string test, bool prompt, const BenchSizes& sizes) {
      Measurement measurement;
      measurement.test = std::move(test);
      measurement.prompt = prompt;
      measurement.n_threads = n_threads;
      measurement.kernels = model.info().kernels;
      cases_.push_back({model, &speed, speed.measurements.size(), sizes});
      speed.measurements.push_back(std::move(measurement));
    };
    for (const int64_t n : prompts) add(fmt::format("pp{}", n), true, sizes(n, 0, 1));
    for (const int64_t depth : depths) {
      const std::string place = depth > 1 ? fmt::format(" @ d{}", depth) : "";
      add(fmt::format("tg{}", options_.n_generate) + place, false, sizes(0, options_.n_generate, depth));
    }
  }

  // Everything once a round, forwards and backwards by turns, so that no test always stands behind the same other.
  Status run_rounds() {
    const InterruptScope scope;
    Progress progress("Measuring");
    const double n_steps = double(options_.n_rounds + 1) * double(cases_.size());
    double n_done = 0;
    for (int round = 0; round <= options_.n_rounds; ++round) {
      std::map<int, MachineLimits> limits;
      for (Ceiling& ceiling : report_.ceilings) {
        const MachineLimits found = limits[ceiling.n_threads] = meter_->measure(ceiling.n_threads);
        if (round == 0) continue;
        ceiling.read_gb_per_s.push_back(found.read_gb_per_s);
        ceiling.int8_gops_per_s.push_back(found.int8_gops_per_s);
      }
      for (size_t i = 0; i < cases_.size(); ++i) {
        if (interrupted()) return interrupted_error();
        const Case& one = cases_[round % 2 == 0 ? i : cases_.size() - 1 - i];
        BN_RETURN_IF_ERROR(run_case(one, limits[one.speed->measurements[one.measurement].n_threads], round > 0));
        progress.update(++n_done / n_steps);
      }
    }
    return ok();
  }

  Status run_case(const Case& one, const MachineLimits& limits, bool count) {
    Measurement& m = one.speed->measurements[one.measurement];
    const std::vector<int32_t> ids = bench_ids(one.model, one.sizes);
    BN_ASSIGN_OR_RETURN(const BenchRun run, run_bench_once(one.model, one.sizes, m.n_threads, ids));
    BN_RETURN_IF_ERROR(check_hash(*one.speed, m, run));
    if (!count) return ok();
    const double speed = m.prompt ? run.prompt : run.generate;
    const double need = m.prompt ? double(one.speed->info.ops_per_token) / 1e9 : run.bytes_per_token / 1e9;
    const double capacity = m.prompt ? limits.int8_gops_per_s : limits.read_gb_per_s;
    m.speeds.push_back(speed);
    if (need > 0 && capacity > 0) m.shares.push_back(speed * need / capacity);
    if (const std::optional<double> joules = m.prompt ? run.prompt_joules : run.generate_joules) {
      m.joules.push_back(*joules);
    }
    if (!m.prompt) m.bytes_per_token = run.bytes_per_token;
    return ok();
  }

  // A test's logits are the same in every round, with any number of threads and every instruction set.
  Status check_hash(const ModelSpeed& speed, const Measurement& m, const BenchRun& run) {
    LogitsHash hash;
    add_to(hash, run.best);
    std::string& first = hashes_[speed.name + " " + m.test];
    if (first.empty()) first = hash.hex();
    if (first == hash.hex()) return ok();
    return make_error(ErrorCode::kInternal,
                      "{}, {} on {} threads with {}: the same tokens gave other logits, {} and {}", speed.name, m.test,
                      m.n_threads, m.kernels, first, hash.hex());
  }

  Status add_phases(ModelSpeed& speed) {
    auto timed = std::make_unique<TimedBackend>(std::make_unique<CpuBackend>(*chosen_));
    TimedBackend* const backend = timed.get();
    BN_ASSIGN_OR_RETURN(const Model model, load(speed.info.path, std::move(timed)));
    name_matrices(*model.impl(), *backend);
    BenchSizes both = sizes(speed.phase_prompt, options_.n_generate, 1);
    both.timed = backend;
    const std::vector<int32_t> ids = bench_ids(model, both);
    std::vector<BenchRun> runs;
    for (int i = 0; i <= kPhaseRuns; ++i) {
      BN_ASSIGN_OR_RETURN(BenchRun run, run_bench_once(model, both, threads_.back(), ids));
      if (i > 0) runs.push_back(std::move(run));
    }
    speed.phase_threads = threads_.back();
    speed.prompt_phases = medians(runs, &BenchRun::prompt_phases);
    speed.generate_phases = medians(runs, &BenchRun::generate_phases);
    return ok();
  }

  static std::vector<TimedBackend::Phase> medians(const std::vector<BenchRun>& runs,
                                                  std::vector<TimedBackend::Phase> BenchRun::*phases) {
    std::vector<TimedBackend::Phase> result = runs.front().*phases;
    for (size_t i = 0; i < result.size(); ++i) {
      std::vector<double> seconds;
      for (const BenchRun& run : runs) {
        if (i < (run.*phases).size()) seconds.push_back((run.*phases)[i].seconds);
      }
      result[i].seconds = median(seconds);
    }
    return result;
  }

  const Invocation& invocation_;
  const SpeedReportOptions& options_;
  std::vector<int> threads_;
  std::vector<int64_t> prompts_, depths_;  // of the model added last
  const CpuKernels* chosen_ = nullptr;
  EnergyMeter energy_;
  std::optional<MachineMeter> meter_;
  std::vector<Case> cases_;
  std::map<std::string, std::string> hashes_;
  SpeedReport report_;
};

}  // namespace

std::string model_name(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  const std::filesystem::path last = normal.has_filename() ? normal.filename() : normal.parent_path().filename();
  return last.extension() == ".gguf" ? last.stem().string() : last.string();
}

Result<SpeedReport> measure_speed(const Invocation& invocation, const SpeedReportOptions& options) {
  return SpeedRun(invocation, options).run();
}

}  // namespace bitnet::cli
