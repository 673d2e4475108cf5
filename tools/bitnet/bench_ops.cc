// bitnet bench ops: single operations of the back end, the shapes of BitNet b1.58 2B4T.
#include "base/rng.h"
#include "bench.h"
#include "interrupt.h"
#include "kernels/backend.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "quant/activations.h"
#include "report/statistics.h"

#include <CLI/CLI.hpp>

#include <chrono>
#include <cstring>
#include <memory>

namespace bitnet::cli {
namespace {

struct OpsFlags {
  std::string device = "cpu";
  std::vector<int> threads;
  int64_t n_tokens = 128;
  int repetitions = 9;
};

struct Shape2d {
  const char* name;
  int64_t n_rows, n_cols;
};
constexpr Shape2d kTernary[] = {{"q/o", 2560, 2560}, {"k/v", 640, 2560}, {"gate/up", 6912, 2560}, {"down", 2560, 6912}};
constexpr Shape2d kHead = {"head", 128256, 2560};

struct OpResult {
  std::string op, shape;
  int n_threads = 1;
  int64_t n_tokens = 1;
  double gweights_per_s = 0;  // weights times tokens
  double gb_per_s = 0;        // of weights read, once a call
};

Result<std::unique_ptr<Matrix>> ternary_matrix(const Backend& backend, const Shape2d& shape, ThreadPool& pool) {
  TernarySource source;
  source.n_rows = shape.n_rows;
  source.n_cols = shape.n_cols;
  source.read_codes = [&shape](int64_t row_begin, int64_t n_rows, uint8_t* codes) -> Status {
    const CounterRng rng(uint64_t(row_begin), 1);
    for (int64_t i = 0; i < n_rows * shape.n_cols; ++i) codes[i] = uint8_t(rng.bits(uint64_t(i)) % 3);
    return ok();
  };
  return backend.prepare(source, pool);
}

Result<std::unique_ptr<Matrix>> head_matrix(const Backend& backend, ThreadPool& pool) {
  FloatSource source;
  source.dtype = DType::kBF16;
  source.n_rows = kHead.n_rows;
  source.n_cols = kHead.n_cols;
  source.read_rows = [](int64_t row_begin, int64_t n_rows, std::byte* out) -> Status {
    const CounterRng rng(uint64_t(row_begin), 2);
    for (int64_t i = 0; i < n_rows * kHead.n_cols; ++i) {
      // Sign and mantissa at random, exponents of values between 1/64 and 1/32.
      const uint16_t bits = uint16_t((rng.bits(uint64_t(i)) & 0x807fu) | 0x3c80u);
      std::memcpy(out + i * 2, &bits, 2);
    }
    return ok();
  };
  return backend.prepare(source, pool);
}

// Activations in both forms.
class Inputs {
 public:
  static Result<Inputs> make(int64_t n_tokens, int64_t n_cols) {
    Inputs inputs;
    const int64_t stride = quantized_stride(n_cols);
    BN_ASSIGN_OR_RETURN(inputs.floats_, Buffer::allocate(size_t(n_tokens * n_cols) * sizeof(float)));
    BN_ASSIGN_OR_RETURN(inputs.codes_, Buffer::allocate(size_t(n_tokens * stride)));
    inputs.inv_scales_.resize(size_t(n_tokens));
    inputs.sums_.resize(size_t(n_tokens));
    inputs.x_ = {inputs.floats_.as<float>(), n_tokens, n_cols};
    inputs.q_ = {inputs.codes_.as<int8_t>(), inputs.inv_scales_.data(), inputs.sums_.data(), n_tokens, n_cols, stride};
    const CounterRng rng(3);
    for (int64_t t = 0; t < n_tokens; ++t) {
      float* const row = inputs.x_.row(t);
      for (int64_t i = 0; i < n_cols; ++i) row[i] = float(rng.normal(uint64_t(t * n_cols + i)));
      const QuantizedRowInfo info = quantize_row_absmax(row, n_cols, inputs.q_.codes + t * stride);
      inputs.q_.inv_scales[t] = info.inv_scale;
      inputs.q_.sums[t] = info.sum;
    }
    return inputs;
  }
  MatrixView floats() const { return x_; }
  const QuantizedView& quantized() const { return q_; }

 private:
  Buffer floats_, codes_;
  std::vector<float> inv_scales_;
  std::vector<int32_t> sums_;
  MatrixView x_;
  QuantizedView q_;
};

// Several copies, so that a matrix does not stay in the cache from one product to the next.
int copies_for(const Matrix& matrix) {
  return int(std::min<size_t>(64, (size_t{256} << 20) / std::max<size_t>(matrix.size_bytes(), 1) + 1));
}

Result<OpResult> time_op(const Backend& backend, Stream& stream, const std::vector<std::unique_ptr<Matrix>>& copies,
                         const Shape2d& shape, int64_t n_tokens, int repetitions) {
  BN_ASSIGN_OR_RETURN(const Inputs inputs, Inputs::make(n_tokens, shape.n_cols));
  BN_ASSIGN_OR_RETURN(const Buffer out, Buffer::allocate(size_t(n_tokens * shape.n_rows) * sizeof(float)));
  const Matrix& first = *copies.front();
  std::vector<double> seconds;
  for (int round = 0; round <= repetitions; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (const auto& matrix : copies) {
      const LinearCall call{matrix.get(), {out.as<float>(), n_tokens, shape.n_rows}};
      if (first.ternary()) {
        backend.linear(stream, {&call, 1}, inputs.quantized());
      } else {
        backend.linear(stream, {&call, 1}, inputs.floats());
      }
    }
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (round > 0) seconds.push_back(elapsed / double(copies.size()));
    if (interrupted()) return interrupted_error();
  }
  OpResult result;
  result.op = std::string(first.ternary() ? "ternary " : "bf16 ") + shape.name;
  result.shape = fmt::format("[{}, {}]", shape.n_rows, shape.n_cols);
  result.n_tokens = n_tokens;
  const double time = median(seconds);
  result.gweights_per_s = double(shape.n_rows) * double(shape.n_cols) * double(n_tokens) / time / 1e9;
  result.gb_per_s = double(first.bytes_per_product()) / time / 1e9;
  return result;
}

Status measure(const Backend& backend, const OpsFlags& flags, const std::vector<std::unique_ptr<Matrix>>& copies,
               const Shape2d& shape, const std::vector<int64_t>& token_counts, std::vector<OpResult>& results) {
  for (const int n_threads : flags.threads) {
    StreamOptions options;
    options.n_threads = n_threads;
    options.max_tokens = flags.n_tokens;
    options.max_cols = shape.n_cols;
    BN_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.new_stream(options));
    for (const int64_t n_tokens : token_counts) {
      BN_ASSIGN_OR_RETURN(OpResult result, time_op(backend, *stream, copies, shape, n_tokens, flags.repetitions));
      result.n_threads = n_threads;
      results.push_back(std::move(result));
    }
  }
  return ok();
}

Result<int> run(const Invocation& invocation, OpsFlags flags) {
  if (flags.threads.empty()) flags.threads.push_back(available_cpus());
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(flags.device));
  ThreadPool pool(available_cpus());
  std::vector<OpResult> results;
  const InterruptScope scope;
  Progress progress("Measuring");
  for (const Shape2d& shape : kTernary) {
    std::vector<std::unique_ptr<Matrix>> copies(1);
    BN_ASSIGN_OR_RETURN(copies[0], ternary_matrix(*backend, shape, pool));
    for (int n = copies_for(*copies[0]); int(copies.size()) < n;) {
      BN_ASSIGN_OR_RETURN(auto copy, ternary_matrix(*backend, shape, pool));
      copies.push_back(std::move(copy));
      if (interrupted()) return interrupted_error();
    }
    BN_RETURN_IF_ERROR(measure(*backend, flags, copies, shape, {1, flags.n_tokens}, results));
    progress.update(double(&shape - kTernary + 1) / 5);
  }
  std::vector<std::unique_ptr<Matrix>> head(1);
  BN_ASSIGN_OR_RETURN(head[0], head_matrix(*backend, pool));
  BN_RETURN_IF_ERROR(measure(*backend, flags, head, kHead, {1}, results));

  if (invocation.json) {
    OrderedJson list = OrderedJson::array();
    for (const OpResult& r : results) {
      list.push_back({{"op", r.op},
                      {"shape", r.shape},
                      {"tokens", r.n_tokens},
                      {"threads", r.n_threads},
                      {"gweights_per_s", r.gweights_per_s},
                      {"gb_per_s", r.gb_per_s}});
    }
    print_json(
        {{"device", std::string(backend->name())}, {"kernels", std::string(backend->kernels())}, {"results", list}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"op", "shape", "tokens", "threads", "Gweights/s", "GB/s"}};
  for (const OpResult& r : results) {
    rows.push_back({r.op, r.shape, fmt::format("{}", r.n_tokens), fmt::format("{}", r.n_threads),
                    human_rate(r.gweights_per_s), human_rate(r.gb_per_s)});
  }
  print(fmt::format("{} kernels; weights times tokens, medians of {}\n\n", backend->kernels(), flags.repetitions) +
        table(rows));
  return 0;
}

}  // namespace

void add_bench_ops(CLI::App& bench, Invocation& invocation) {
  auto flags = std::make_shared<OpsFlags>();
  CLI::App* command = bench.add_subcommand("ops", "Measure single operations of the back end");
  command->add_option("-t,--threads", flags->threads, "Threads, 1,2,4 (default: all processors)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024).description(""));
  command->add_option("--tokens", flags->n_tokens, "Tokens of the prompt-like products")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}).description(""))
      ->capture_default_str();
  command->add_option("-r,--repetitions", flags->repetitions, "Times that every operation runs")
      ->check(CLI::Range(1, 10000).description(""))
      ->capture_default_str();
  command->add_option("--device", flags->device, "Back end: cpu or reference")->capture_default_str();
  define(*command, invocation, "bitnet bench ops -t 1,2",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
