// What tracking costs of a program's own work: a generation with the shipped model, a whole run of it (load, session,
// generation) and a training step, each with tracking off, sampled and full in turns, on one thread. Run it from the
// project's folder. The counters are percent of processor time beside the same work without tracking in the same round:
// the median of all rounds, and between what it lies for certain (95%, by the ranks of the rounds). "events" are
// allocations and releases of the pool in one piece of work.
//   tracking_bench [--benchmark_filter=train]
#include "base/file.h"
#include "base/rng.h"
#include "bitnet/bitnet.h"
#include "memory/pool.h"
#include "train/trainer.h"

#include <benchmark/benchmark.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr const char* kModel = "models/storyteller-29m.gguf";
constexpr int64_t kTokens = 64;
constexpr std::array kLevels = {Tracking::kOff, Tracking::kSampled, Tracking::kFull};

double processor_seconds() {
  timespec now;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}
double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[size_t(share * double(values.size() - 1) + 0.5)];
}

std::atomic<int64_t> n_events{0};

// One iteration is a round of all levels, in an order that rotates. `work` returns false where it failed.
template <class Work>
void measure(benchmark::State& state, const Work& work) {
  Pool& pool = host_pool();
  pool.set_observer([](const PoolEvent&) { n_events.fetch_add(1, std::memory_order_relaxed); });
  n_events = 0;
  bool fine = work();  // the caches are warm from here on
  pool.set_observer(nullptr);
  state.counters["events"] = double(n_events.load());
  std::array<std::vector<double>, kLevels.size()> more;
  size_t round = 0;
  for (auto _ : state) {
    std::array<double, kLevels.size()> seconds{};
    for (size_t i = 0; i < kLevels.size(); ++i) {
      const size_t level = (i + round) % kLevels.size();
      pool.set_tracking(kLevels[level]);
      const double start = processor_seconds();
      fine = work() && fine;
      seconds[level] = processor_seconds() - start;
      pool.set_tracking(Tracking::kOff);
    }
    ++round;
    for (size_t level = 1; level < kLevels.size(); ++level)
      more[level].push_back(100 * (seconds[level] / seconds[0] - 1));
    state.SetIterationTime(seconds[0]);
  }
  if (!fine) return state.SkipWithError("the work failed");
  for (size_t level = 1; level < kLevels.size(); ++level) {
    const std::string name = level == 1 ? "sampled" : "full";
    const double n = double(more[level].size()), ranks = 0.98 / std::sqrt(n);  // of n rounds, on both sides
    state.counters[name + "_%"] = quantile(more[level], 0.5);
    state.counters[name + "_low_%"] = quantile(more[level], std::max(0.0, 0.5 - ranks));
    state.counters[name + "_high_%"] = quantile(more[level], std::min(1.0, 0.5 + ranks));
  }
}

bool generate_some(const Model& model) {
  SessionOptions options;
  options.n_threads = 1;
  auto session = model.new_session(options);
  GenerateOptions how;
  how.max_new_tokens = kTokens;
  how.ignore_eos = true;
  return session && generate(*session, "Once upon a time", how);
}

void generation(benchmark::State& state) {
  const auto model = Model::load(kModel);
  if (!model) return state.SkipWithError(model.error().message.c_str());
  measure(state, [&] { return generate_some(*model); });
}

void whole_run(benchmark::State& state) {
  LoadOptions options;
  options.n_threads = 1;
  measure(state, [&] {
    const auto model = Model::load(kModel, options);
    return model && generate_some(*model);
  });
}

// Four layers, 256 wide, 4 sequences of 64 bytes: as the recorded trace.
void train_step(benchmark::State& state) {
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("tracking_bench-" + std::to_string(::getpid()))).string();
  std::filesystem::create_directories(folder);
  std::string text(200000, ' ');
  const CounterRng rng(1);
  for (size_t i = 0; i < text.size(); ++i) text[i] = char('a' + rng.bits(i) % 26);
  TrainOptions options;
  options.n_layers = 4;
  options.d_model = 256;
  options.d_ff = 512;
  options.n_heads = 4;
  options.n_ctx = 64;
  options.batch = 4;
  options.steps = 1 << 20;
  options.warmup = 1;
  options.threads = 1;
  options.text = folder + "/text.txt";
  options.run = folder + "/run";
  if (const Status written = write_file_atomically(options.text, text); !written) {
    state.SkipWithError(written.error().message.c_str());
  } else if (const auto trainer = Trainer::create(options); !trainer) {
    state.SkipWithError(trainer.error().message.c_str());
  } else {
    measure(state, [&] { return (*trainer)->train_step().has_value(); });
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  using namespace bitnet;
  const auto add = [](const char* name, void (*fn)(benchmark::State&)) {
    benchmark::RegisterBenchmark(name, fn)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(241);
  };
  add("tracking/generation", generation);
  add("tracking/run", whole_run);
  add("tracking/train_step", train_step);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
