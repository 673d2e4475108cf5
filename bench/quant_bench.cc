// Packings and quantisers on one thread: quant_bench [--benchmark_filter=unpack]. Matrices are larger than the last
// cache. "of_copy" is the rate of bytes read and written beside that of memcpy, which alternates with the measurement:
// 1 means that memory, not the code, is the limit.
#include "base/rng.h"
#include "quant/activations.h"
#include "quant/hadamard.h"
#include "quant/histogram.h"
#include "quant/scheme.h"
#include "quant/ternary.h"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kRows = 8192, kCols = 12288;           // 100 million codes, twice the last cache of most machines
constexpr int64_t kFloatRows = 4096, kFloatCols = 6144;  // 100 MB

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// memcpy between two buffers of 64 MiB: bytes read and written a second.
double copy_bytes_per_s() {
  static std::vector<char> from(size_t{64} << 20, 1), to(size_t{64} << 20, 2);
  const auto start = Clock::now();
  std::memcpy(to.data(), from.data(), from.size());
  benchmark::DoNotOptimize(to.data());
  benchmark::ClobberMemory();
  return 2.0 * double(from.size()) / seconds_since(start);
}

// Times fn() and the copy in turn.
template <class Fn>
void against_copy(benchmark::State& state, double bytes, double values, const Fn& fn) {
  double copied = 0, seconds = 0;
  int64_t n = 0;
  for (auto _ : state) {
    const auto start = Clock::now();
    fn();
    const double took = seconds_since(start);
    state.SetIterationTime(took);
    seconds += took;
    copied += 1.0 / copy_bytes_per_s();
    ++n;
  }
  const double rate = bytes * double(n) / seconds;
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["of_copy"] = rate * copied / double(n);
  state.counters["Gvalues/s"] = values * double(n) / seconds * 1e-9;
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

void pack(benchmark::State& state, TernaryLayout layout) {
  const auto& codes = codes_for(layout);
  if (!has_fixed_size(layout)) {
    size_t size = 0;
    against_copy(state, double(codes.size()), double(codes.size()),
                 [&] { size = encode_ternary(layout, kRows, kCols, codes, {})->size(); });
    state.counters["bits"] = 8.0 * double(size) / double(codes.size());
    return;
  }
  std::vector<std::byte> out(*ternary_bytes(layout, kRows, kCols), std::byte{1});
  against_copy(state, double(codes.size() + out.size()), double(codes.size()),
               [&] { benchmark::DoNotOptimize(bool(encode_ternary(layout, kRows, kCols, codes, {}, out))); });
}

void unpack(benchmark::State& state, TernaryLayout layout) {
  const auto& codes = codes_for(layout);
  const auto bytes = *encode_ternary(layout, kRows, kCols, codes, {});
  std::vector<uint8_t> out(codes.size(), 1);
  against_copy(state, double(codes.size() + bytes.size()), double(codes.size()), [&] {
    benchmark::DoNotOptimize(bool(decode_ternary({layout, kRows, kCols, bytes}, 0, kRows, out.data())));
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

void ternarize_with(benchmark::State& state, TernaryMethod method) {
  const auto& values = float_weights();
  std::vector<uint8_t> codes(values.size(), 1);
  // The floats once for their scale and once for their codes.
  against_copy(state, 9.0 * double(values.size()), double(values.size()),
               [&] { benchmark::DoNotOptimize(ternarize_group(method, values, {}, codes.data())); });
}

void scheme(benchmark::State& state, const std::string& text) {
  const auto parsed = *parse_scheme(text);
  const auto values = std::span(float_weights()).first(size_t(256 * kFloatCols));
  size_t size = 0;
  against_copy(state, 4.0 * double(values.size()), double(values.size()),
               [&] { size = quantize_by_scheme(parsed, values, 256, kFloatCols)->size(); });
  state.counters["bits"] = 8.0 * double(size) / double(values.size());
}

template <class Fn>
void activations(benchmark::State& state, const Fn& fn) {
  std::vector<int8_t> q(size_t{6912});
  const float* x = float_weights().data();
  for (auto _ : state) benchmark::DoNotOptimize(fn(x, q.data()));
  state.counters["Gvalues/s"] = benchmark::Counter(6912e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
}

void register_all() {
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    const TernaryLayout layout = info.layout;
    benchmark::RegisterBenchmark(("unpack/" + std::string(info.flag)).c_str(),
                                 [layout](benchmark::State& state) { unpack(state, layout); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("pack/" + std::string(info.flag)).c_str(),
                                 [layout](benchmark::State& state) { pack(state, layout); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  for (const TernaryMethod method : {TernaryMethod::kAbsmean, TernaryMethod::kAbsmedian, TernaryMethod::kLeastSquares,
                                     TernaryMethod::kTwn, TernaryMethod::kLearned}) {
    benchmark::RegisterBenchmark((std::string("ternarize/") + ternary_method_name(method)).c_str(),
                                 [method](benchmark::State& state) { ternarize_with(state, method); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
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
    benchmark::RegisterBenchmark((std::string("scheme/") + text).c_str(),
                                 [text](benchmark::State& state) { scheme(state, text); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
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
