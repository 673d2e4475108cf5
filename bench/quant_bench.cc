// Packings and quantisers: quant_bench [--benchmark_filter=unpack/i2_s]. Names end in the instruction set, where there
// are several, and the number of threads, each of which works on a matrix of its own. All matrices lie far beyond the
// second cache. "GB/s" are bytes read and written; "of_copy" and "of_read" compare that with memcpy and with reading,
// by as many threads, measured in turns with the operation. "of_memory" is the time in which memory alone could do it,
// the longer of reading what is read and copying half of all that moves, beside the time taken. All are of medians.
#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/cpu/dispatch.h"
#include "memory/buffer.h"
#include "quant/activations.h"
#include "quant/hadamard.h"
#include "quant/histogram.h"
#include "quant/scheme.h"
#include "quant/ternary.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kRows = 8192, kCols = 12288;           // 100 million codes
constexpr int64_t kFloatRows = 4096, kFloatCols = 6144;  // 100 MB

double seconds_of(const auto& fn) {
  const auto start = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
double median(std::vector<double> values) {
  const auto middle = values.begin() + int64_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}
// fn(i) for i = 0 to n_threads - 1, each in its own thread.
void by_threads(ThreadPool& pool, const auto& fn) {
  pool.run([&](int thread) { fn(int64_t{thread}); });
}

// What memory can do at best.
class Ceilings {
 public:
  double copy_bytes_per_s(ThreadPool& pool) {
    const size_t n = from_.size() / size_t(pool.n_threads());
    return 2.0 * double(from_.size()) / seconds_of([&] {
             by_threads(pool, [&](int64_t i) { std::memcpy(&to_[size_t(i) * n], &from_[size_t(i) * n], n); });
             benchmark::ClobberMemory();
           });
  }
  double read_bytes_per_s(ThreadPool& pool) {
    const size_t n = from_.size() / size_t(pool.n_threads());
    return double(from_.size()) / seconds_of([&] {
             by_threads(pool, [&](int64_t i) { benchmark::DoNotOptimize(sum(&from_[size_t(i) * n], n)); });
           });
  }

 private:
  static uint64_t sum(const char* p, size_t n) {
    uint64_t sums[16] = {};
    for (size_t i = 0; i + 128 <= n; i += 128) {
      __builtin_prefetch(p + i + 4096);
      __builtin_prefetch(p + i + 4160);
      uint64_t words[16];
      std::memcpy(words, p + i, sizeof words);
      for (int k = 0; k < 16; ++k) sums[k] += words[k];
    }
    uint64_t all = 0;
    for (const uint64_t one : sums) all += one;
    return all;
  }
  std::vector<char> from_ = std::vector<char>(size_t{128} << 20, 1), to_ = std::vector<char>(size_t{128} << 20, 2);
};

struct Traffic {
  double read_bytes, written_bytes;
};
// Times fn(thread) by all threads, copying and reading in turns.
template <class Fn>
void against_memory(benchmark::State& state, int n_threads, Traffic traffic, double values, const Fn& fn) {
  static Ceilings ceilings;
  ThreadPool pool(n_threads);
  std::vector<double> times, copies, reads;
  for (auto _ : state) {
    const double seconds = seconds_of([&] { by_threads(pool, fn); });
    state.SetIterationTime(seconds);
    times.push_back(seconds);
    copies.push_back(ceilings.copy_bytes_per_s(pool));
    reads.push_back(ceilings.read_bytes_per_s(pool));
  }
  const double bytes = traffic.read_bytes + traffic.written_bytes, rate = bytes / median(times);
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["of_copy"] = rate / median(copies);
  state.counters["of_read"] = rate / median(reads);
  state.counters["of_memory"] = std::max(traffic.read_bytes / median(reads), bytes / median(copies)) / median(times);
  state.counters["Gvalues/s"] = values / median(times) * 1e-9;
}

const std::vector<uint8_t>& codes_for(TernaryLayout layout) {
  static std::vector<uint8_t> ternary, binary;
  if (ternary.empty()) {
    const CounterRng rng(1);
    ternary.resize(size_t(kRows * kCols));
    for (size_t i = 0; i < ternary.size(); i += 16) {
      uint64_t bits = rng.bits(i);
      for (size_t k = 0; k < 16; ++k, bits >>= 4) ternary[i + k] = uint8_t((bits & 15) % 3);
    }
    binary = ternary;
    for (uint8_t& code : binary) code = code == 1 ? 2 : code;
  }
  return layout == TernaryLayout::kQ1_0 ? binary : ternary;
}

// The rows are shared out: a matrix for each thread.
void pack(benchmark::State& state, TernaryLayout layout, const TernaryCodecs& codecs, int n_threads) {
  const auto& codes = codes_for(layout);
  const int64_t n_rows = kRows / n_threads, n = n_rows * kCols;
  if (!has_fixed_size(layout)) {
    std::vector<size_t> sizes(static_cast<size_t>(n_threads));
    against_memory(state, n_threads, {double(codes.size()), 0.0}, double(codes.size()), [&](int64_t i) {
      sizes[size_t(i)] =
          encode_ternary(layout, n_rows, kCols, std::span(codes).subspan(size_t(i * n), size_t(n)), {})->size();
    });
    state.counters["bits"] = 8.0 * double(sizes[0]) / double(n);
    return;
  }
  const size_t size = *ternary_bytes(layout, n_rows, kCols);
  std::vector<std::byte> out(size * size_t(n_threads), std::byte{1});
  against_memory(state, n_threads, {double(codes.size()), double(out.size())}, double(codes.size()), [&](int64_t i) {
    const auto some = std::span(codes).subspan(size_t(i * n), size_t(n));
    const auto to = std::span(out).subspan(size_t(i) * size, size);
    benchmark::DoNotOptimize(bool(encode_ternary(layout, n_rows, kCols, some, {}, to, {}, codecs)));
  });
}

void unpack(benchmark::State& state, TernaryLayout layout, const TernaryCodecs& codecs, int n_threads) {
  const auto& codes = codes_for(layout);
  const int64_t n_rows = kRows / n_threads, n = n_rows * kCols;
  std::vector<std::vector<std::byte>> packed;
  size_t n_bytes = 0;
  for (int64_t i = 0; i < n_threads; ++i) {
    const auto some = std::span(codes).subspan(size_t(i * n), size_t(n));
    packed.push_back(*encode_ternary(layout, n_rows, kCols, some, {}, {}, codecs));
    n_bytes += packed.back().size();
  }
  const Buffer buffer = *Buffer::allocate(codes.size());  // on a cache line, as all of the library's
  uint8_t* const out = buffer.as<uint8_t>();
  std::fill_n(out, codes.size(), uint8_t{1});
  against_memory(state, n_threads, {double(n_bytes), double(codes.size())}, double(codes.size()), [&](int64_t i) {
    const TernaryView view = {layout, n_rows, kCols, packed[size_t(i)], {}};
    benchmark::DoNotOptimize(bool(decode_ternary(view, 0, n_rows, out + i * n, codecs)));
  });
}

const std::vector<float>& float_weights() {
  static std::vector<float> values;
  if (values.empty()) {
    const CounterRng rng(2);
    values.resize(size_t(kFloatRows * kFloatCols));
    for (size_t i = 0; i < values.size(); ++i) values[i] = float(rng.uniform(i) - 0.5) * 0.06f;
  }
  return values;
}

void ternarize_with(benchmark::State& state, TernaryMethod method, const TernaryCodecs& codecs, int n_threads) {
  const auto& values = float_weights();
  const size_t n = values.size() / size_t(n_threads);
  std::vector<uint8_t> codes(values.size(), 1);
  // The floats once for their scale and once for their codes.
  against_memory(state, n_threads, {8.0 * double(values.size()), double(values.size())}, double(values.size()),
                 [&](int64_t i) {
                   const auto some = std::span(values).subspan(size_t(i) * n, n);
                   benchmark::DoNotOptimize(ternarize_group(method, some, {}, &codes[size_t(i) * n], codecs));
                 });
}

void scheme(benchmark::State& state, const std::string& text) {
  const auto parsed = *parse_scheme(text);
  const auto values = std::span(float_weights()).first(size_t(256 * kFloatCols));
  size_t size = 0;
  against_memory(state, 1, {4.0 * double(values.size()), 0.0}, double(values.size()), [&](int64_t) {
    size = quantize_by_scheme(parsed, values, 256, kFloatCols, cpu_ternary_codecs())->size();
  });
  state.counters["bits"] = 8.0 * double(size) / double(values.size());
}

template <class Fn>
void activations(benchmark::State& state, const Fn& fn) {
  std::vector<int8_t> q(size_t{6912});
  const float* x = float_weights().data();
  for (auto _ : state) benchmark::DoNotOptimize(fn(x, q.data()));
  state.counters["Gvalues/s"] = benchmark::Counter(6912e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
}

template <class Fn>
void add(const std::string& name, Fn fn) {
  benchmark::RegisterBenchmark(name.c_str(), fn)->UseManualTime()->Unit(benchmark::kMillisecond);
}

// The loops of every instruction set here that has its own.
std::vector<const TernaryCodecs*> all_codecs() {
  std::vector<const TernaryCodecs*> all;
  for (const CpuKernels* kernels : usable_cpu_kernels()) {
    if (all.empty() || all.back() != kernels->codecs) all.push_back(kernels->codecs);
  }
  return all;
}
bool has_loops(TernaryLayout layout) {
  using enum TernaryLayout;
  return has_fixed_size(layout) && layout != kTL1 && layout != kTL2 && layout != kMsGpu;
}

void register_all() {
  for (const int n_threads : {1, 2}) {
    const std::string threads = "/threads:" + std::to_string(n_threads);
    for (const TernaryLayoutInfo& info : ternary_layouts()) {
      const TernaryLayout layout = info.layout;
      for (const TernaryCodecs* codecs : all_codecs()) {
        const std::string name = std::string(info.flag) + "/" + codecs->name + threads;
        if (codecs != &kPlainTernaryCodecs && !has_loops(layout)) continue;
        add("unpack/" + name, [=](benchmark::State& state) { unpack(state, layout, *codecs, n_threads); });
        add("pack/" + name, [=](benchmark::State& state) { pack(state, layout, *codecs, n_threads); });
      }
    }
    for (const TernaryMethod method : {TernaryMethod::kAbsmean, TernaryMethod::kAbsmedian, TernaryMethod::kLeastSquares,
                                       TernaryMethod::kTwn, TernaryMethod::kLearned}) {
      for (const TernaryCodecs* codecs : all_codecs()) {
        const bool uses_codecs = method == TernaryMethod::kAbsmean || method == TernaryMethod::kLearned;
        if (codecs != &kPlainTernaryCodecs && !uses_codecs) continue;
        add(std::string("ternarize/") + ternary_method_name(method) + "/" + codecs->name + threads,
            [=](benchmark::State& state) { ternarize_with(state, method, *codecs, n_threads); });
      }
    }
  }
  for (const char* text : {"absmean:group=64",
                           "lsq:group=64",
                           "q1_0",
                           "q2_k",
                           "q3_k",
                           "q4_0",
                           "q4_1",
                           "q4_k",
                           "q5_0",
                           "q5_1",
                           "q5_k",
                           "q6_k",
                           "q8_0",
                           "int2:group=64",
                           "int3:group=64",
                           "int4:group=64,asym",
                           "int4:group=64,search",
                           "int8:per=row",
                           "int8:per=row,stochastic=1",
                           "int4:per=row,rotate=256"}) {
    add(std::string("scheme/") + text, [text](benchmark::State& state) { scheme(state, text); });
  }
  benchmark::RegisterBenchmark("activations/int8", [](benchmark::State& state) {
    activations(state, [](const float* x, int8_t* q) { return quantize_row_absmax(x, 6912, q).sum; });
  });
  benchmark::RegisterBenchmark("activations/int4", [](benchmark::State& state) {
    activations(state, [](const float* x, int8_t* q) { return quantize_row_int4(x, 6912, q).sum; });
  });
  benchmark::RegisterBenchmark("activations/topk", [](benchmark::State& state) {
    activations(state, [](const float* x, int8_t* q) { return quantize_row_topk(x, 6912, 3800, q).sum; });
  });
  benchmark::RegisterBenchmark("hadamard/256", [](benchmark::State& state) {
    std::vector<float> x(float_weights().begin(), float_weights().begin() + 65536);
    for (auto _ : state) hadamard(x.data(), 65536, 256, 1);
    state.counters["Gvalues/s"] =
        benchmark::Counter(65536e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
  });
  benchmark::RegisterBenchmark("histogram/add", [](benchmark::State& state) {
    StreamingHistogram histogram;
    for (auto _ : state) histogram.add(std::span(float_weights()).first(65536));
    state.counters["Gvalues/s"] =
        benchmark::Counter(65536e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
  });
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  bitnet::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
