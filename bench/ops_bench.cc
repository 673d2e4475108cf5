// The CPU kernels at the shapes of BitNet b1.58 2B4T, per instruction set: ops_bench --benchmark_filter=avx512vnni.
// Weights stand in more memory than the last cache holds, so that generation is measured as it runs. BENCH_THREADS sets
// the number of threads (default: all). Compare machines by GB/s, instruction sets by Gweights/s.
#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace bitnet {
namespace {

constexpr int64_t kModel = 2560, kKv = 640, kFeed = 6912, kVocab = 128256, kHeads = 20, kKvHeads = 5, kHeadDim = 128;
constexpr int64_t kLayers = 30;

int n_threads() {
  const char* const text = std::getenv("BENCH_THREADS");
  return text != nullptr && std::atoi(text) > 0 ? std::atoi(text) : available_cpus();
}

void fill_random(uint8_t* bytes, size_t n, uint64_t seed) {
  const CounterRng rng(seed);
  for (size_t i = 0; i + 8 <= n; i += 8) {
    const uint64_t bits = rng.bits(i);
    std::memcpy(bytes + i, &bits, 8);
  }
}

std::unique_ptr<Matrix> ternary_matrix(const Backend& backend, ThreadPool& pool, int64_t n_rows, int64_t n_cols) {
  std::vector<uint8_t> panel(size_t(n_cols) * 64);
  const CounterRng rng(1);
  for (size_t i = 0; i < panel.size(); ++i) panel[i] = uint8_t(rng.bits(i) % 3);
  TernarySource source;
  source.n_rows = n_rows;
  source.n_cols = n_cols;
  source.read_codes = [&](int64_t row, int64_t n, uint8_t* codes) -> Status {
    for (int64_t r = 0; r < n; ++r) {
      std::memcpy(codes + r * n_cols, panel.data() + (row + r) * 37 % 64 * n_cols, size_t(n_cols));
    }
    return ok();
  };
  return *backend.prepare(source, pool);
}

std::unique_ptr<Matrix> float_matrix(const Backend& backend, ThreadPool& pool, DType dtype, int64_t n_rows,
                                     int64_t n_cols, TableUse use = TableUse::kProducts) {
  FloatSource source;
  source.use = use;
  source.dtype = dtype;
  source.n_rows = n_rows;
  source.n_cols = n_cols;
  const int64_t row_bytes = n_cols / dtype_info(dtype).block_size * dtype_info(dtype).block_bytes;
  source.read_rows = [=](int64_t row, int64_t n, std::byte* out) -> Status {
    fill_random(reinterpret_cast<uint8_t*>(out), size_t(n * row_bytes), uint64_t(row));
    for (int64_t i = 0; i < n * row_bytes; ++i) out[i] &= std::byte{0x3f};  // no infinities in any float format
    return ok();
  };
  return *backend.prepare(source, pool);
}

// Everything that a measurement needs around the operation.
struct Bench {
  Bench(const CpuKernels& kernels, int64_t n_tokens, int64_t n_ctx = 1)
      : backend(kernels),
        codes(size_t(n_tokens * quantized_stride(kFeed))),
        inv_scales(size_t(n_tokens), 0.01f),
        sums(size_t(n_tokens)) {
    StreamOptions options;
    options.n_threads = n_threads();
    options.max_tokens = n_tokens;
    options.max_cols = kFeed;
    options.n_ctx = n_ctx;
    options.n_heads = kHeads;
    stream = *backend.new_stream(options);
    fill_random(reinterpret_cast<uint8_t*>(codes.data()), codes.size(), 2);
  }
  QuantizedView quantized(int64_t n_tokens, int64_t n_cols) {
    return {codes.data(), inv_scales.data(), sums.data(), n_tokens, n_cols, quantized_stride(n_cols)};
  }

  CpuBackend backend;
  std::unique_ptr<Stream> stream;
  std::vector<int8_t> codes;
  std::vector<float> inv_scales;
  std::vector<int32_t> sums;
};

struct Layer {
  Layer(const Backend& backend, ThreadPool& pool)
      : q(ternary_matrix(backend, pool, kModel, kModel)),
        k(ternary_matrix(backend, pool, kKv, kModel)),
        v(ternary_matrix(backend, pool, kKv, kModel)),
        o(ternary_matrix(backend, pool, kModel, kModel)),
        gate(ternary_matrix(backend, pool, kFeed, kModel)),
        up(ternary_matrix(backend, pool, kFeed, kModel)),
        down(ternary_matrix(backend, pool, kModel, kFeed)) {}
  static constexpr int64_t kWeights = kModel * (2 * kModel + 2 * kKv + 3 * kFeed);

  void run(Bench& bench, int64_t n_tokens, std::vector<float>& out) const {
    const auto view = [&](int64_t at, int64_t n_cols) {
      return MatrixView{out.data() + at * n_tokens, n_tokens, n_cols};
    };
    const LinearCall qkv[] = {{q.get(), view(0, kModel)}, {k.get(), view(kModel, kKv)}, {v.get(), view(kFeed, kKv)}};
    const LinearCall output[] = {{o.get(), view(0, kModel)}};
    const LinearCall gate_up[] = {{gate.get(), view(0, kFeed)}, {up.get(), view(kFeed, kFeed)}};
    const LinearCall last[] = {{down.get(), view(0, kModel)}};
    bench.backend.linear(*bench.stream, qkv, bench.quantized(n_tokens, kModel));
    bench.backend.linear(*bench.stream, output, bench.quantized(n_tokens, kModel));
    bench.backend.linear(*bench.stream, gate_up, bench.quantized(n_tokens, kModel));
    bench.backend.linear(*bench.stream, last, bench.quantized(n_tokens, kFeed));
  }
  std::unique_ptr<Matrix> q, k, v, o, gate, up, down;
};

void rates(benchmark::State& state, double weights, double bytes) {
  const double n = double(state.iterations());
  state.counters["Gweights/s"] = benchmark::Counter(n * weights * 1e-9, benchmark::Counter::kIsRate);
  if (bytes > 0) state.counters["GB/s"] = benchmark::Counter(n * bytes * 1e-9, benchmark::Counter::kIsRate);
}

// All ternary products of one token (30 layers) and then the head: the part of generation that reads weights.
void token(benchmark::State& state, const CpuKernels* kernels, DType head_type) {
  Bench bench(*kernels, 1);
  std::vector<Layer> layers;
  for (int64_t i = 0; i < kLayers; ++i) layers.emplace_back(bench.backend, bench.stream->pool());
  const auto head = float_matrix(bench.backend, bench.stream->pool(), head_type, kVocab, kModel);
  std::vector<float> out(2 * kFeed), logits(kVocab), x(kModel, 0.5f);
  const LinearCall call = {head.get(), {logits.data(), 1, kVocab}};
  for (auto _ : state) {
    for (const Layer& layer : layers) layer.run(bench, 1, out);
    bench.backend.linear(*bench.stream, {&call, 1}, MatrixView{x.data(), 1, kModel});
  }
  rates(state, double(kLayers * Layer::kWeights + kVocab * kModel),
        double(kLayers * Layer::kWeights / 4) + double(head->size_bytes()));
  state.counters["tokens/s"] = benchmark::Counter(double(state.iterations()), benchmark::Counter::kIsRate);
}

// The ternary products of one layer for a prompt.
void prompt(benchmark::State& state, const CpuKernels* kernels) {
  const int64_t n_tokens = state.range(0);
  Bench bench(*kernels, n_tokens);
  const Layer layer(bench.backend, bench.stream->pool());
  std::vector<float> out(size_t(2 * kFeed * n_tokens));
  for (auto _ : state) layer.run(bench, n_tokens, out);
  rates(state, double(Layer::kWeights * n_tokens), 0);
  state.counters["tokens/s"] =
      benchmark::Counter(double(state.iterations() * n_tokens) / kLayers, benchmark::Counter::kIsRate);
}

void head(benchmark::State& state, const CpuKernels* kernels, DType dtype) {
  const int64_t n_tokens = state.range(0);
  Bench bench(*kernels, n_tokens);
  const auto weight = float_matrix(bench.backend, bench.stream->pool(), dtype, kVocab, kModel);
  std::vector<float> x(size_t(kModel * n_tokens), 0.5f), logits(size_t(kVocab * n_tokens));
  const LinearCall call = {weight.get(), {logits.data(), n_tokens, kVocab}};
  for (auto _ : state) bench.backend.linear(*bench.stream, {&call, 1}, MatrixView{x.data(), n_tokens, kModel});
  rates(state, double(kVocab * kModel * n_tokens), double(weight->size_bytes()));
}

// The best token alone, by way of the sketch of the head (kernels/cpu/head_sketch.h): what greedy generation runs.
void best_logits(benchmark::State& state, const CpuKernels* kernels, DType dtype) {
  Bench bench(*kernels, 1);
  const auto weight = float_matrix(bench.backend, bench.stream->pool(), dtype, kVocab, kModel, TableUse::kHead);
  std::vector<float> x(size_t{kModel}), logits(size_t{kVocab});
  const CounterRng rng(3);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(rng.normal(i));
  for (auto _ : state) {
    const Status status = bench.backend.best_logits(*bench.stream, *weight, {x.data(), 1, kModel}, state.range(0),
                                                    {logits.data(), 1, kVocab});
    if (!status) state.SkipWithError(status.error().message.c_str());
  }
  rates(state, double(kVocab * kModel), double(weight->bytes_per_product()));
}

// Ternary weights with float32 activations: --no-act-quant.
void float_inputs(benchmark::State& state, const CpuKernels* kernels) {
  Bench bench(*kernels, 1);
  const auto weight = ternary_matrix(bench.backend, bench.stream->pool(), kFeed, kModel);
  std::vector<float> x(size_t{kModel}, 0.5f), out(size_t{kFeed});
  const LinearCall call = {weight.get(), {out.data(), 1, kFeed}};
  for (auto _ : state) bench.backend.linear(*bench.stream, {&call, 1}, MatrixView{x.data(), 1, kModel});
  rates(state, double(kFeed * kModel), double(weight->size_bytes()));
}

// The keys and values of `n` new positions of one layer.
void store_kv(benchmark::State& state, const CpuKernels* kernels, DType dtype) {
  const int64_t n = state.range(0), n_ctx = 1024;
  Bench bench(*kernels, n, n_ctx);
  KvLayer kv = {nullptr, nullptr, dtype, kKvHeads, n_ctx, kHeadDim};
  std::vector<uint8_t> keys(size_t(kKvHeads * kv.head_bytes())), values(keys.size());
  kv.k = keys.data();
  kv.v = values.data();
  std::vector<float> x(size_t(n * kKv), 0.3f);
  for (auto _ : state) bench.backend.store_kv(*bench.stream, {x.data(), n, kKv}, {x.data(), n, kKv}, kv, 17);
  state.counters["Gvalues/s"] =
      benchmark::Counter(double(state.iterations()) * 2e-9 * double(n * kKv), benchmark::Counter::kIsRate);
}

// `n` queries at the end of a context of `n_ctx` positions, one layer; the layers take turns, as in a model, so that
// none stays in the processor's cache.
void attention(benchmark::State& state, const CpuKernels* kernels, DType dtype) {
  const int64_t n = state.range(0), n_ctx = state.range(1);
  Bench bench(*kernels, n, n_ctx);
  KvLayer kv = {nullptr, nullptr, dtype, kKvHeads, n_ctx, kHeadDim};
  const size_t plane_bytes = size_t(kKvHeads * kv.head_bytes());
  std::vector<uint8_t> cache(2 * kLayers * plane_bytes, 0x30);
  std::vector<float> q(size_t(n * kHeads * kHeadDim), 0.1f), out = q;
  const MatrixView q_view = {q.data(), n, kHeads * kHeadDim}, out_view = {out.data(), n, kHeads * kHeadDim};
  size_t layer = 0;
  for (auto _ : state) {
    kv.k = cache.data() + 2 * layer * plane_bytes;
    kv.v = cache.data() + (2 * layer + 1) * plane_bytes;
    bench.backend.attention(*bench.stream, q_view, kv, n_ctx - n, out_view);
    layer = (layer + 1) % kLayers;
  }
  state.counters["GB/s"] =
      benchmark::Counter(double(state.iterations()) * 2e-9 * double(plane_bytes), benchmark::Counter::kIsRate);
  const double pairs = double(n) * (double(n_ctx) - double(n - 1) / 2) * double(kHeads * kHeadDim);
  state.counters["GFLOP/s"] =
      benchmark::Counter(double(state.iterations()) * 4e-9 * pairs, benchmark::Counter::kIsRate);
}

// Norm, quantiser, rotation and gate of one token or a prompt, one layer's worth.
void token_ops(benchmark::State& state, const CpuKernels* kernels, GateActivation activation) {
  const int64_t n = state.range(0);
  Bench bench(*kernels, n);
  std::vector<float> x(size_t(n * kFeed), 0.3f), y = x, table(size_t(n * kHeadDim / 2), 0.5f), weight(kFeed, 1.0f);
  const MatrixView model = {x.data(), n, kModel}, feed = {x.data(), n, kFeed}, up = {y.data(), n, kFeed};
  const RopeTable rope = {table.data(), table.data(), n, kHeadDim / 2};
  for (auto _ : state) {
    for (int i = 0; i < 3; ++i) {
      bench.backend.rms_norm(*bench.stream, model, weight, 1e-5f, {y.data(), n, kModel});
      bench.backend.quantize(*bench.stream, model, bench.quantized(n, kModel));
    }
    bench.backend.rope(*bench.stream, {y.data(), n, kModel + kKv}, kHeadDim, rope, 0);
    bench.backend.gate(*bench.stream, activation, feed, up, up);
    bench.backend.rms_norm(*bench.stream, feed, weight, 1e-5f, up);
    bench.backend.quantize(*bench.stream, up, bench.quantized(n, kFeed));
  }
}

// The layout change at load time.
void prepare(benchmark::State& state, const CpuKernels* kernels) {
  const CpuBackend backend(*kernels);
  ThreadPool pool(n_threads());
  for (auto _ : state) benchmark::DoNotOptimize(ternary_matrix(backend, pool, kFeed, kModel));
  rates(state, double(kFeed * kModel), 0);
}

template <class Fn>
benchmark::internal::Benchmark* add(const std::string& name, Fn fn) {
  return benchmark::RegisterBenchmark(name.c_str(), fn)->UseRealTime()->Unit(benchmark::kMillisecond);
}

void register_all() {
  for (const CpuKernels* kernels : usable_cpu_kernels()) {
    const std::string isa = kernels->name;
    for (const DType type : {DType::kF16, DType::kQ8_0, DType::kQ6_K}) {
      const std::string type_name(dtype_info(type).name);
      add(isa + "/token/" + type_name, [=](benchmark::State& s) { token(s, kernels, type); });
    }
    add(isa + "/prompt", [=](benchmark::State& s) { prompt(s, kernels); })->Arg(2)->Arg(4)->Arg(8)->Arg(32)->Arg(512);
    for (const DType type :
         {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ6_K, DType::kQ4_0, DType::kQ4_K}) {
      const std::string type_name(dtype_info(type).name);
      add(isa + "/head/" + type_name, [=](benchmark::State& s) { head(s, kernels, type); })->Arg(1)->Arg(16);
    }
    for (const DType type : {DType::kF16, DType::kQ8_0, DType::kI8, DType::kI4}) {
      const std::string type_name(dtype_info(type).name);
      add(isa + "/attention/" + type_name, [=](benchmark::State& s) { attention(s, kernels, type); })
          ->Args({1, 512})
          ->Args({1, 4096})
          ->Args({512, 512});
    }
    for (const DType type : {DType::kF32, DType::kF16, DType::kQ8_0, DType::kI8, DType::kI4}) {
      const std::string type_name(dtype_info(type).name);
      add(isa + "/store_kv/" + type_name, [=](benchmark::State& s) { store_kv(s, kernels, type); })->Arg(1)->Arg(512);
    }
    add(isa + "/best_logits/F16", [=](benchmark::State& s) { best_logits(s, kernels, DType::kF16); })->Arg(1)->Arg(40);
    add(isa + "/float_inputs", [=](benchmark::State& s) { float_inputs(s, kernels); });
    for (const GateActivation gate : {GateActivation::kRelu2, GateActivation::kSilu}) {
      add(isa + "/token_ops" + (gate == GateActivation::kSilu ? "/silu" : ""),
          [=](benchmark::State& s) { token_ops(s, kernels, gate); })
          ->Arg(1)
          ->Arg(512);
    }
    add(isa + "/prepare", [=](benchmark::State& s) { prepare(s, kernels); });
  }
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  bitnet::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
