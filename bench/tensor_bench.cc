// Tensors on one thread (products on all that the process may use): [taskset -c 0] tensor_bench
// [--benchmark_filter=sum]. "of_copy" is the rate of bytes read and written beside memcpy's on as many bytes, which
// alternates with the measurement; "of_eigen" the speed beside Eigen called directly on the same matrices, in turns
// too. 1 means as fast as that.
#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "tensor/activation.h"
#include "tensor/elementwise.h"
#include "tensor/linalg/linalg.h"
#include "tensor/reduce.h"

#include <benchmark/benchmark.h>
#include <Eigen/Dense>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

namespace bitnet {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median_of(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + int64_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// fn() and other() in turns; the medians of their seconds.
template <class Fn, class Other>
std::pair<double, double> in_turns(benchmark::State& state, const Fn& fn, const Other& other) {
  std::vector<double> ours, theirs;
  for (auto _ : state) {
    const auto start = Clock::now();
    fn();
    ours.push_back(seconds_since(start));
    state.SetIterationTime(ours.back());
    const auto other_start = Clock::now();
    other();
    theirs.push_back(seconds_since(other_start));
  }
  return {median_of(ours), median_of(theirs)};
}

template <class Fn>
void against_copy(benchmark::State& state, double bytes, const Fn& fn) {
  static std::vector<char> from, to;
  from.resize(std::max(from.size(), size_t(bytes / 2)), 1);
  to.resize(from.size(), 2);
  const auto [ours, copy] = in_turns(state, fn, [&] {
    std::memcpy(to.data(), from.data(), size_t(bytes / 2));
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  });
  state.counters["GB/s"] = bytes / ours * 1e-9;
  state.counters["of_copy"] = copy / ours;
}

void register_memory_bound() {
  constexpr int64_t kRows = 4096, kCols = 4096;  // 64 MiB of floats
  static const Tensor a = *Tensor::uniform(DType::kF32, {kRows, kCols}, 1),
                      row = *Tensor::uniform(DType::kF32, {kCols}, 2);
  static const Tensor b = *Tensor::uniform(DType::kF32, {kRows, kCols}, 3);
  static const Tensor halves = *cast(a, DType::kF16), other_halves = *cast(b, DType::kF16);
  static Tensor out = *Tensor::zeros(DType::kF32, {kRows, kCols}),
                half_out = *Tensor::zeros(DType::kF16, {kRows, kCols});
  constexpr double kBytes = double(kRows * kCols) * 4;
  const auto add_bench = [](const char* name, double bytes, auto fn) {
    benchmark::RegisterBenchmark(name, [bytes, fn](benchmark::State& state) { against_copy(state, bytes, fn); })
        ->UseManualTime()
        ->MinTime(0.5)
        ->Unit(benchmark::kMillisecond);
  };
  const auto binary = [](BinaryOp op, TensorView x, TensorView y, Tensor& to) {
    return [=, &to] { (void)apply(op, x, y, to.mutable_view()); };
  };
  add_bench("add/f32", 3 * kBytes, binary(BinaryOp::kAdd, a, b, out));
  add_bench("multiply/f32_by_row", 2 * kBytes, binary(BinaryOp::kMultiply, a, row, out));
  add_bench("add/f32_transposed", 3 * kBytes, binary(BinaryOp::kAdd, a, *b.view().transpose(), out));
  add_bench("add/f16", 1.5 * kBytes, binary(BinaryOp::kAdd, halves, other_halves, half_out));
  add_bench("exp/f32", 2 * kBytes, [] { (void)apply(UnaryOp::kExp, a, out.mutable_view()); });
  add_bench("less/f32", 2.25 * kBytes, [] { benchmark::DoNotOptimize(less(a, b)); });
  add_bench("assign/f32_to_f16", 1.5 * kBytes, [] { (void)assign(half_out.mutable_view(), a); });
  add_bench("assign/f32_transposed", 2 * kBytes, [] { (void)assign(out.mutable_view(), *a.view().transpose()); });
  const auto reducing = [](Reduction reduction, std::vector<int64_t> axes) {
    return [=] { benchmark::DoNotOptimize(reduce(reduction, a, {axes})); };
  };
  add_bench("sum/all", kBytes, reducing(Reduction::kSum, {}));
  add_bench("sum/rows", kBytes, reducing(Reduction::kSum, {1}));
  add_bench("sum/columns", kBytes, reducing(Reduction::kSum, {0}));
  add_bench("max/all", kBytes, reducing(Reduction::kMaximum, {}));
  add_bench("variance/rows", 2 * kBytes, reducing(Reduction::kVariance, {1}));
  add_bench("argmax/rows", kBytes, [] { benchmark::DoNotOptimize(argmax(a, {{1}})); });
  add_bench("median/rows", kBytes, [] { benchmark::DoNotOptimize(median(a, {{1}})); });
  add_bench("silu/f32", 2 * kBytes, [] { benchmark::DoNotOptimize(activate(Activation::kSilu, a)); });
  add_bench("softmax/rows", 2 * kBytes, [] { benchmark::DoNotOptimize(softmax(a)); });
}

template <class Fn, class Other>
void against_eigen(const char* name, int64_t n, double flops, const Fn& fn, const Other& other) {
  benchmark::RegisterBenchmark(fmt::format("{}/{}", name, n).c_str(),
                               [=](benchmark::State& state) {
                                 const auto [ours, eigen] = in_turns(state, fn, other);
                                 state.counters["GFLOP/s"] = flops / ours * 1e-9;
                                 state.counters["of_eigen"] = eigen / ours;
                               })
      ->UseManualTime()
      ->MinTime(0.5)
      ->Unit(benchmark::kMillisecond);
}

// Flops by the customary counts (Golub and Van Loan).
void register_linear_algebra() {
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  static ThreadPool pool(available_cpus());
  for (const int64_t n : {64, 256, 1024}) {
    const double cube = double(n) * double(n) * double(n);
    static std::vector<std::pair<Tensor, Tensor>> kept;  // benchmarks run after this returns
    kept.reserve(3);
    kept.emplace_back(*Tensor::normal(DType::kF32, {n, n}, 1), *Tensor::normal(DType::kF64, {n, n}, 2));
    const TensorView f = kept.back().first, d = kept.back().second;
    const Eigen::Map<const Floats> ef(reinterpret_cast<const float*>(f.data()), n, n);
    const Eigen::MatrixXd ed = Eigen::Map<const Eigen::MatrixXd>(reinterpret_cast<const double*>(d.data()), n, n);
    against_eigen(
        "matmul/f32", n, 2 * cube, [=] { benchmark::DoNotOptimize(matmul(pool, f, f)); },
        [=] { benchmark::DoNotOptimize(Floats(ef * ef)); });
    against_eigen(
        "matmul/f64", n, 2 * cube, [=] { benchmark::DoNotOptimize(matmul(pool, d, d)); },
        [=] { benchmark::DoNotOptimize(Eigen::MatrixXd(ed * ed)); });
    if (n > 256) continue;
    const Eigen::MatrixXd spd = ed * ed.transpose() + double(n) * Eigen::MatrixXd::Identity(n, n);
    static std::vector<Tensor> definite;
    definite.reserve(3);
    definite.push_back(*Tensor::from(std::span<const double>(spd.data(), size_t(n * n)), {n, n}));
    const TensorView s = definite.back();
    against_eigen(
        "solve", n, 2.0 / 3 * cube + 2 * cube, [=] { benchmark::DoNotOptimize(solve(d, d)); },
        [=] { benchmark::DoNotOptimize(Eigen::MatrixXd(ed.partialPivLu().solve(ed))); });
    against_eigen(
        "inverse", n, 2 * cube, [=] { benchmark::DoNotOptimize(inverse(d)); },
        [=] { benchmark::DoNotOptimize(Eigen::MatrixXd(ed.inverse())); });
    against_eigen(
        "cholesky", n, cube / 3, [=] { benchmark::DoNotOptimize(cholesky(s)); },
        [=] { benchmark::DoNotOptimize(Eigen::MatrixXd(spd.llt().matrixL())); });
    against_eigen(
        "qr", n, 8.0 / 3 * cube, [=] { benchmark::DoNotOptimize(qr(d)); },
        [=] {
          const Eigen::HouseholderQR<Eigen::MatrixXd> factors(ed);
          benchmark::DoNotOptimize(Eigen::MatrixXd(factors.householderQ()));
        });
    against_eigen(
        "svd", n, 21 * cube, [=] { benchmark::DoNotOptimize(svd(d)); },
        [=] { benchmark::DoNotOptimize(ed.bdcSvd(Eigen::ComputeThinU | Eigen::ComputeThinV)); });
    against_eigen(
        "eigen_symmetric", n, 9 * cube, [=] { benchmark::DoNotOptimize(eigen_symmetric(s)); },
        [=] { benchmark::DoNotOptimize(Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(spd)); });
    against_eigen(
        "eigen_general", n, 25 * cube, [=] { benchmark::DoNotOptimize(eigen_general(d)); },
        [=] { benchmark::DoNotOptimize(Eigen::EigenSolver<Eigen::MatrixXd>(ed)); });
  }
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  bitnet::register_memory_bound();
  bitnet::register_linear_algebra();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
