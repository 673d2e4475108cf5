#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/shares.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>

namespace bitnet {
namespace {

constexpr int64_t kMaxBest = 256;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Finds the largest logits by the sketch's bounds (head_sketch.h): one pass over the coarse planes, the exact logits of
// the likeliest rows, then a pass over what their least one leaves open. Several inputs share the passes.
class HeadSearch {
 public:
  static constexpr int64_t kInputsAtOnce = 16;

  // `x` and `out` have at most kInputsAtOnce rows.
  HeadSearch(const CpuKernels& kernels, CpuStream& stream, const CpuFloatMatrix& table, MatrixView x, MatrixView out)
      : kernels_(kernels), stream_(stream), table_(table), sketch_(*table.sketch()), x_(x), out_(out) {}

  Status run(int64_t n_best) {
    for (int64_t i = 0; i < x_.n_rows; ++i) quantize(i);
    // The coarse sums stand in `out` until the second pass puts logits in their place.
    parallel_shares(stream_, sketch_.n_tiles(), [&](int64_t begin, int64_t end, int thread) {
      for (int64_t tile = begin; tile < end; ++tile) {
        for (int64_t i = 0; i < x_.n_rows; ++i) coarse_tile(i, tile, stream_.sums(thread));
      }
      stream_.count_weight_bytes(2 * sketch_.tile_bytes() * (end - begin));
    });
    for (int64_t i = 0; i < x_.n_rows; ++i) {
      BN_ASSIGN_OR_RETURN(inputs_[size_t(i)].least, least_of_likeliest(i, n_best));
    }
    std::mutex failing;
    std::optional<Error> failure;
    parallel_shares(stream_, sketch_.n_tiles(), [&](int64_t begin, int64_t end, int thread) {
      int64_t n_bytes = 0;
      for (int64_t tile = begin; tile < end; ++tile) {
        for (int64_t i = 0; i < x_.n_rows; ++i) {
          auto status = finish_tile(i, tile, thread, n_bytes);
          if (status) continue;
          const std::lock_guard<std::mutex> lock(failing);
          failure = std::move(status.error());
        }
      }
      stream_.count_weight_bytes(n_bytes);
    });
    if (failure) return *std::move(failure);
    return ok();
  }

 private:
  // A row of x as the sketch sees it, x~ = q * inv_scale, with what its rounding loses.
  struct Input {
    const int8_t* q = nullptr;
    float inv_scale = 0;
    int32_t sum = 0;   // of q
    float length = 0;  // |x|, rounded up
    float error = 0;   // |x - x~|, rounded up
    float least = 0;   // no logit below it is among the best
  };

  void quantize(int64_t i) {
    Input& input = inputs_[size_t(i)];
    const int64_t n = x_.n_cols, stride = quantized_stride(n);
    const float* const x = x_.row(i);
    int8_t* const q = stream_.packed_tokens() + i * stride;
    kernels_.quantize(x, n, stride, q, &input.inv_scale, &input.sum);
    double squares = 0, rest_squares = 0;
    for (int64_t col = 0; col < n; ++col) {
      const double value = x[col], rest = value - double(q[col]) * double(input.inv_scale);
      squares += value * value;
      rest_squares += rest * rest;
    }
    constexpr double kRoundUp = 1.0 + 1e-6;
    input.q = q;
    input.length = float(std::sqrt(squares) * kRoundUp);
    input.error = float(std::sqrt(rest_squares) * kRoundUp);
  }

  int64_t rows_in(int64_t tile) const { return std::min(kTileRows, table_.n_rows() - tile * kTileRows); }

  void coarse_tile(int64_t i, int64_t tile, int32_t* sums) const {
    const Input& input = inputs_[size_t(i)];
    int32_t upper[kTileRows];
    kernels_.matvec_tile(sketch_.coarse(tile, 0), sketch_.n_blocks(), input.q, upper);
    kernels_.matvec_tile(sketch_.coarse(tile, 1), sketch_.n_blocks(), input.q, sums);
    for (int64_t row = 0; row < kTileRows; ++row) sums[row] += 4 * upper[row];
    std::memcpy(out_.row(i) + tile * kTileRows, sums, size_t(rows_in(tile)) * sizeof(int32_t));
  }

  int32_t coarse_sum(int64_t i, int64_t row) const {
    int32_t sum;
    std::memcpy(&sum, out_.row(i) + row, sizeof sum);
    return sum;
  }
  float coarse_logit(const Input& input, int64_t row, int32_t sum) const {
    return float(4 * sum - 30 * input.sum) * (sketch_.step(row) * input.inv_scale);
  }
  float fine_logit(const Input& input, int64_t row, int32_t sum, int32_t fine) const {
    return float(2 * (4 * sum + fine) - 63 * input.sum) * (0.5f * sketch_.step(row) * input.inv_scale);
  }
  float bound(const Input& input, int64_t row, float row_error) const {
    const float slack = (float(x_.n_cols) / 16 + 64) * 0x1p-24f;
    return row_error * (input.length + input.error) + sketch_.length(row) * (input.error + slack * input.length);
  }

  Result<float> exact(int64_t i, int64_t row, int thread) const {
    BN_ASSIGN_OR_RETURN(const uint8_t* weights, table_.read_row(row, stream_.codes(thread)));
    float logit = 0;
    kernels_.dot[table_.type_index()]({.rows = weights,
                                       .row_bytes = table_.row_bytes(),
                                       .n_rows = 1,
                                       .x = x_.row(i),
                                       .x_stride = x_.n_cols,
                                       .n_x = 1,
                                       .n_cols = x_.n_cols,
                                       .out = &logit,
                                       .out_stride = 1});
    return logit;
  }

  // The least exact logit of the n_best rows with the largest coarse ones: no row below it is among the n_best.
  Result<float> least_of_likeliest(int64_t i, int64_t n_best) const {
    struct Likely {
      float logit;
      int64_t row;
    };
    std::array<Likely, kMaxBest> heap;  // the least likely on top
    const auto above = [](const Likely& a, const Likely& b) { return a.logit > b.logit; };
    int64_t n = 0;
    for (int64_t row = 0; row < table_.n_rows(); ++row) {
      const float logit = coarse_logit(inputs_[size_t(i)], row, coarse_sum(i, row));
      if (n == n_best && !(logit > heap[0].logit)) continue;
      if (n == n_best) std::pop_heap(heap.begin(), heap.begin() + n--, above);
      heap[size_t(n++)] = {logit, row};
      std::push_heap(heap.begin(), heap.begin() + n, above);
    }
    float least = std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < n; ++j) {
      BN_ASSIGN_OR_RETURN(const float logit, exact(i, heap[size_t(j)].row, 0));
      least = std::min(least, logit);
    }
    return least;
  }

  // Comparisons are written so that a bound that is not a number rules nothing out.
  Status finish_tile(int64_t i, int64_t tile, int thread, int64_t& n_bytes) const {
    const Input& input = inputs_[size_t(i)];
    float* const out = out_.row(i);
    const int64_t first = tile * kTileRows, n_rows = rows_in(tile);
    int32_t coarse[kTileRows];
    bool open[kTileRows];
    bool any = false;
    for (int64_t j = 0; j < n_rows; ++j) {
      const int64_t row = first + j;
      coarse[j] = coarse_sum(i, row);
      open[j] = !(coarse_logit(input, row, coarse[j]) + bound(input, row, sketch_.coarse_error(row)) < input.least);
      any |= open[j];
      out[row] = kLowest;
    }
    if (!any) return ok();
    int32_t* const fine = stream_.sums(thread);
    kernels_.matvec_tile(sketch_.fine(tile), sketch_.n_blocks(), input.q, fine);
    n_bytes += sketch_.tile_bytes();
    for (int64_t j = 0; j < n_rows; ++j) {
      const int64_t row = first + j;
      if (!open[j]) continue;
      if (fine_logit(input, row, coarse[j], fine[j]) + bound(input, row, sketch_.fine_error(row)) < input.least)
        continue;
      BN_ASSIGN_OR_RETURN(out[row], exact(i, row, thread));
      n_bytes += table_.row_bytes();
    }
    return ok();
  }

  const CpuKernels& kernels_;
  CpuStream& stream_;
  const CpuFloatMatrix& table_;
  const HeadSketch& sketch_;
  MatrixView x_, out_;
  std::array<Input, kInputsAtOnce> inputs_;
};

}  // namespace

Status CpuBackend::best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t n_best,
                               MatrixView out) const {
  const auto& weights = static_cast<const CpuFloatMatrix&>(table);
  if (weights.sketch() == nullptr || n_best > kMaxBest) {
    BN_RETURN_IF_ERROR(table.load_rows(stream.pool()));
    const LinearCall call{&table, out};
    linear(stream, {&call, 1}, x);
    return ok();
  }
  for (int64_t first = 0; first < x.n_rows; first += HeadSearch::kInputsAtOnce) {
    const int64_t n = std::min(HeadSearch::kInputsAtOnce, x.n_rows - first);
    HeadSearch search(kernels_, static_cast<CpuStream&>(stream), weights, {x.row(first), n, x.n_cols},
                      {out.row(first), n, out.n_cols});
    BN_RETURN_IF_ERROR(search.run(n_best));
  }
  return ok();
}

}  // namespace bitnet
