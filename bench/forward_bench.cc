// Whole models: prompts, generation and what a session costs, of a made-up tiny model and of the shipped one. Run it
// from the project's folder. BENCH_THREADS sets the number of threads (default: all), BITNET_CPU_ISA the instruction
// set.
#include "model/convert.h"

#include "bitnet/bitnet.h"

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kGenerated = 32;

SessionOptions session_options() {
  SessionOptions options;
  const char* const text = std::getenv("BENCH_THREADS");
  options.n_threads = text != nullptr ? std::max(0, std::atoi(text)) : 0;
  return options;
}

std::vector<int32_t> some_ids(const Model& model, int64_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(int64_t(i * 7919 + 11) % model.info().vocab_size);
  return ids;
}

void token_rate(benchmark::State& state, int64_t n_tokens) {
  state.counters["tokens/s"] = benchmark::Counter(double(state.iterations() * n_tokens), benchmark::Counter::kIsRate);
}

// A prompt of range(0) tokens from an empty cache, with the logits of its last token.
void prompt(benchmark::State& state, const Model& model) {
  auto session = model.new_session(session_options());
  if (!session) return state.SkipWithError(session.error().message.c_str());
  const std::vector<int32_t> ids = some_ids(model, state.range(0));
  for (auto _ : state) {
    session->reset();
    if (const Status fed = session->append(ids); !fed) return state.SkipWithError(fed.error().message.c_str());
    benchmark::DoNotOptimize(session->logits().data());
  }
  token_rate(state, state.range(0));
}

// Tokens after range(0) others, with the sampling of `options`; the prompt is not timed.
void generation(benchmark::State& state, const Model& model, const GenerateOptions& options) {
  auto session = model.new_session(session_options());
  if (!session) return state.SkipWithError(session.error().message.c_str());
  const std::vector<int32_t> ids = some_ids(model, state.range(0));
  const std::span<const int32_t> last = std::span(ids).last(1);
  if (const Status fed = session->append(ids); !fed) return state.SkipWithError(fed.error().message.c_str());
  for (auto _ : state) {
    state.PauseTiming();
    if (const Status cut = session->truncate(state.range(0) - 1); !cut) return state.SkipWithError("cannot truncate");
    state.ResumeTiming();
    const auto output = generate(*session, last, options);
    if (!output) return state.SkipWithError(output.error().message.c_str());
  }
  token_rate(state, kGenerated);
}

void new_session(benchmark::State& state, const Model& model) {
  for (auto _ : state) benchmark::DoNotOptimize(model.new_session(session_options()));
}

void load(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(Model::load(path));
}

void register_model(const std::string& name, const std::string& path, const Model& model) {
  const auto add = [&](const std::string& what, auto fn) {
    return benchmark::RegisterBenchmark((name + "/" + what).c_str(), fn)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  add("prompt", [model](benchmark::State& state) { prompt(state, model); })->Arg(1)->Arg(16)->Arg(128);
  GenerateOptions greedy;
  greedy.max_new_tokens = kGenerated;
  greedy.ignore_eos = true;
  greedy.sampling.temperature = 0;
  GenerateOptions sampled = greedy;
  sampled.sampling = {};
  add("greedy", [=](benchmark::State& state) { generation(state, model, greedy); })->Arg(1)->Arg(128);
  add("sampled", [=](benchmark::State& state) { generation(state, model, sampled); })->Arg(1);
  add("new_session", [model](benchmark::State& state) { new_session(state, model); });
  add("load", [path](benchmark::State& state) { load(state, path); });
}

bool register_file(const std::string& name, const std::string& path) {
  const auto model = Model::load(path);
  if (!model) return std::fprintf(stderr, "forward_bench: %s\n", model.error().message.c_str()) < 0;
  register_model(name, path, *model);
  return true;
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const std::string tiny =
      (std::filesystem::temp_directory_path() / ("forward_bench-" + std::to_string(::getpid()) + ".gguf")).string();
  bitnet::SynthOptions options;
  options.preset = "tiny";
  if (const auto made = bitnet::synthesize(tiny, options); !made) {
    return std::fprintf(stderr, "forward_bench: %s\n", made.error().message.c_str()), 3;
  }
  const bool ready =
      bitnet::register_file("tiny", tiny) && bitnet::register_file("storyteller-29m", "models/storyteller-29m.gguf");
  if (ready) benchmark::RunSpecifiedBenchmarks();
  std::filesystem::remove(tiny);
  return ready ? 0 : 3;
}
