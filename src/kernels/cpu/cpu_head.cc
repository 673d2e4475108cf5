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

// The input as the sketch sees it, x~ = q * inv_scale, with what its rounding loses.
struct SketchInput {
  const int8_t* q = nullptr;
  float inv_scale = 0;
  int32_t sum = 0;   // of q
  float length = 0;  // |x|, rounded up
  float error = 0;   // |x - x~|, rounded up
  float slack = 0;   // head_sketch.h
};

// Finds the largest logits by the sketch's bounds (head_sketch.h): one pass over the coarse planes, the exact logits of
// the likeliest rows, then a pass over what their least one leaves open.
class HeadSearch {
 public:
  HeadSearch(const CpuKernels& kernels, CpuStream& stream, const CpuFloatMatrix& table, MatrixView x, float* out)
      : kernels_(kernels), stream_(stream), table_(table), sketch_(*table.sketch()), x_(x), out_(out) {}

  Status run(int64_t n_best) {
    quantize();
    // The coarse sums stand in `out` until the second pass puts logits in their place.
    parallel_shares(stream_, sketch_.n_tiles(), [&](int64_t begin, int64_t end, int thread) {
      for (int64_t tile = begin; tile < end; ++tile) coarse_tile(tile, stream_.sums(thread));
    });
    BN_ASSIGN_OR_RETURN(const float least, least_of_likeliest(n_best));
    std::mutex failing;
    std::optional<Error> failure;
    parallel_shares(stream_, sketch_.n_tiles(), [&](int64_t begin, int64_t end, int thread) {
      for (int64_t tile = begin; tile < end; ++tile) {
        if (auto status = finish_tile(tile, least, thread); !status) {
          const std::lock_guard<std::mutex> lock(failing);
          failure = std::move(status.error());
        }
      }
    });
    if (failure) return *std::move(failure);
    return ok();
  }

 private:
  void quantize() {
    const int64_t n = x_.n_cols;
    int8_t* const q = stream_.packed_tokens();
    kernels_.quantize(x_.data, n, quantized_stride(n), q, &input_.inv_scale, &input_.sum);
    double squares = 0, rest_squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double value = x_.data[i], rest = value - double(q[i]) * double(input_.inv_scale);
      squares += value * value;
      rest_squares += rest * rest;
    }
    constexpr double kRoundUp = 1.0 + 1e-6;
    input_.q = q;
    input_.length = float(std::sqrt(squares) * kRoundUp);
    input_.error = float(std::sqrt(rest_squares) * kRoundUp);
    input_.slack = (float(n) / 16 + 64) * 0x1p-24f;
  }

  int64_t rows_in(int64_t tile) const { return std::min(kTileRows, table_.n_rows() - tile * kTileRows); }

  void coarse_tile(int64_t tile, int32_t* sums) const {
    int32_t upper[kTileRows];
    kernels_.matvec_tile(sketch_.coarse(tile, 0), sketch_.n_blocks(), input_.q, upper);
    kernels_.matvec_tile(sketch_.coarse(tile, 1), sketch_.n_blocks(), input_.q, sums);
    for (int64_t i = 0; i < kTileRows; ++i) sums[i] += 4 * upper[i];
    std::memcpy(out_ + tile * kTileRows, sums, size_t(rows_in(tile)) * sizeof(int32_t));
  }

  int32_t coarse_sum(int64_t row) const {
    int32_t sum;
    std::memcpy(&sum, out_ + row, sizeof sum);
    return sum;
  }
  float coarse_logit(int64_t row, int32_t sum) const {
    return float(4 * sum - 30 * input_.sum) * (sketch_.step(row) * input_.inv_scale);
  }
  float fine_logit(int64_t row, int32_t sum, int32_t fine) const {
    return float(2 * (4 * sum + fine) - 63 * input_.sum) * (0.5f * sketch_.step(row) * input_.inv_scale);
  }
  float bound(int64_t row, float row_error) const {
    return row_error * (input_.length + input_.error) +
           sketch_.length(row) * (input_.error + input_.slack * input_.length);
  }

  Result<float> exact(int64_t row, int thread) const {
    BN_ASSIGN_OR_RETURN(const uint8_t* weights, table_.read_row(row, stream_.codes(thread)));
    float logit = 0;
    kernels_.dot[table_.type_index()]({.rows = weights,
                                       .row_bytes = table_.row_bytes(),
                                       .n_rows = 1,
                                       .x = x_.data,
                                       .x_stride = x_.n_cols,
                                       .n_x = 1,
                                       .n_cols = x_.n_cols,
                                       .out = &logit,
                                       .out_stride = 1});
    return logit;
  }

  // The least exact logit of the n_best rows with the largest coarse ones: no row below it is among the n_best.
  Result<float> least_of_likeliest(int64_t n_best) const {
    struct Likely {
      float logit;
      int64_t row;
    };
    std::array<Likely, kMaxBest> heap;  // the least likely on top
    const auto above = [](const Likely& a, const Likely& b) { return a.logit > b.logit; };
    int64_t n = 0;
    for (int64_t row = 0; row < table_.n_rows(); ++row) {
      const float logit = coarse_logit(row, coarse_sum(row));
      if (n == n_best && !(logit > heap[0].logit)) continue;
      if (n == n_best) std::pop_heap(heap.begin(), heap.begin() + n--, above);
      heap[size_t(n++)] = {logit, row};
      std::push_heap(heap.begin(), heap.begin() + n, above);
    }
    float least = std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < n; ++i) {
      BN_ASSIGN_OR_RETURN(const float logit, exact(heap[size_t(i)].row, 0));
      least = std::min(least, logit);
    }
    return least;
  }

  // Comparisons are written so that a bound that is not a number rules nothing out.
  Status finish_tile(int64_t tile, float least, int thread) const {
    const int64_t first = tile * kTileRows, n_rows = rows_in(tile);
    int32_t coarse[kTileRows];
    bool open[kTileRows];
    bool any = false;
    for (int64_t i = 0; i < n_rows; ++i) {
      const int64_t row = first + i;
      coarse[i] = coarse_sum(row);
      open[i] = !(coarse_logit(row, coarse[i]) + bound(row, sketch_.coarse_error(row)) < least);
      any |= open[i];
      out_[row] = kLowest;
    }
    if (!any) return ok();
    int32_t* const fine = stream_.sums(thread);
    kernels_.matvec_tile(sketch_.fine(tile), sketch_.n_blocks(), input_.q, fine);
    for (int64_t i = 0; i < n_rows; ++i) {
      const int64_t row = first + i;
      if (!open[i] || fine_logit(row, coarse[i], fine[i]) + bound(row, sketch_.fine_error(row)) < least) continue;
      BN_ASSIGN_OR_RETURN(out_[row], exact(row, thread));
    }
    return ok();
  }

  const CpuKernels& kernels_;
  CpuStream& stream_;
  const CpuFloatMatrix& table_;
  const HeadSketch& sketch_;
  MatrixView x_;
  float* out_;
  SketchInput input_;
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
  return HeadSearch(kernels_, static_cast<CpuStream&>(stream), weights, x, out.data).run(n_best);
}

}  // namespace bitnet
