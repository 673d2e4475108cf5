// Tokenizers on one thread: tokenizer_bench TEXT VOCABULARY... [--benchmark_filter=encode]. MB/s count bytes of text.
// The runs of one letter or space have no boundary that a piece could end at; they must not be slower by more than the
// logarithm of their length. Arguments that start with -- go to Google Benchmark.
#include "base/file.h"

#include "bitnet/tokenizer.h"

#include <benchmark/benchmark.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr size_t kRunBytes = 1'000'000;

void rate(benchmark::State& state, size_t n_bytes) {
  state.counters["MB/s"] =
      benchmark::Counter(double(state.iterations()) * double(n_bytes) * 1e-6, benchmark::Counter::kIsRate);
}

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  size_t n_tokens = 0;
  for (auto _ : state) n_tokens = tokenizer.encode(text, {false})->size();
  rate(state, text.size());
  state.counters["tokens"] = double(n_tokens);
}

void decode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<int32_t> ids = *tokenizer.encode(text, {false});
  for (auto _ : state) benchmark::DoNotOptimize(*tokenizer.decode(ids));
  rate(state, text.size());
}

void load(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(*Tokenizer::load(path));
}

template <class Fn>
void add(const std::string& name, Fn fn) {
  benchmark::RegisterBenchmark(name.c_str(), fn)->UseRealTime()->Unit(benchmark::kMillisecond);
}

bool register_all(const std::string& text_path, const std::vector<std::string>& vocabularies) {
  const auto text = read_file(text_path, uint64_t{1} << 30);
  if (!text) return std::fprintf(stderr, "%s\n", text.error().message.c_str()) < 0;
  for (const std::string& path : vocabularies) {
    const auto tokenizer = Tokenizer::load(path);
    if (!tokenizer) return std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str()) < 0;
    const std::string name = std::filesystem::path(path).filename().string();
    const std::pair<const char*, std::string> texts[] = {
        {"text", *text}, {"one_letter", std::string(kRunBytes, 'a')}, {"spaces", std::string(kRunBytes, ' ')}};
    for (const auto& [kind, sample] : texts) {
      add(name + "/encode/" + kind, [t = *tokenizer, s = sample](benchmark::State& state) { encode(state, t, s); });
    }
    add(name + "/decode", [t = *tokenizer, s = *text](benchmark::State& state) { decode(state, t, s); });
    add(name + "/load", [path](benchmark::State& state) { load(state, path); });
  }
  return true;
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TEXT VOCABULARY...\n");
    return 2;
  }
  if (!bitnet::register_all(argv[1], {argv + 2, argv + argc})) return 3;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
