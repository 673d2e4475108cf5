#include "base/parallel_status.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/shares.h"
#include "kernels/cpu/sparse_product.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>

namespace bitnet {
namespace {

constexpr int64_t kMaxBest = 256;
constexpr int64_t kReadPiece_bytes = int64_t{1} << 17;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Exact logits out [n_rows] of x [1, n_cols], of rows that are in memory or read into `scratch` [n_rows, row_bytes].
Status read_logits(const CpuKernels& kernels, const CpuFloatMatrix& table, int64_t first_row, int64_t n_rows,
                   MatrixView x, uint8_t* scratch, float* out) {
  BN_ASSIGN_OR_RETURN(const uint8_t* rows, table.read_rows(first_row, n_rows, scratch));
  kernels.dot[table.type_index()]({.rows = rows,
                                   .row_bytes = table.row_bytes(),
                                   .n_rows = n_rows,
                                   .x = x.data,
                                   .x_stride = x.n_cols,
                                   .n_x = 1,
                                   .n_cols = x.n_cols,
                                   .out = out,
                                   .out_stride = n_rows});
  return ok();
}

// The n_best rows with the largest logits so far.
class Likeliest {
 public:
  void begin(int64_t n_best) {
    n_best_ = n_best;
    n_ = 0;
  }
  int64_t n() const { return n_; }
  int64_t row(int64_t i) const { return heap_[size_t(i)].row; }
  // No logit up to this one is taken.
  float least() const { return n_ < n_best_ ? kLowest : heap_[0].logit; }
  void offer(float logit, int64_t row) {
    if (!(logit > least())) return;
    if (n_ == n_best_) std::pop_heap(heap_.begin(), heap_.begin() + n_--, above);
    heap_[size_t(n_++)] = {logit, row};
    std::push_heap(heap_.begin(), heap_.begin() + n_, above);
  }
  void offer(const Likeliest& others) {
    for (int64_t i = 0; i < others.n_; ++i) offer(others.heap_[size_t(i)].logit, others.row(i));
  }
  void offer_tile(const float* logits, int64_t n_rows, int64_t first_row) {
    float most = kLowest;
    for (int64_t j = 0; j < n_rows; ++j) most = logits[j] > most ? logits[j] : most;
    if (!(most > least())) return;
    for (int64_t j = 0; j < n_rows; ++j) offer(logits[j], first_row + j);
  }

 private:
  struct Likely {
    float logit;
    int64_t row;
  };
  static bool above(const Likely& a, const Likely& b) { return a.logit > b.logit; }
  std::array<Likely, kMaxBest> heap_;  // the least likely on top
  int64_t n_ = 0, n_best_ = 0;
};

// Finds the largest logits by the sketch's bounds (head_sketch.h). The upper codes are read for all rows; the exact
// logits of those that seem likeliest rule most rows out. The lower codes of what stays open give better bounds and
// better candidates, and only rows that are still open then get their exact logits. Several inputs share the passes.
class HeadSearch {
 public:
  // `x` and `out` have at most kInputsAtOnce rows.
  HeadSearch(const CpuKernels& kernels, CpuStream& stream, const CpuFloatMatrix& table, MatrixView x, MatrixView out)
      : kernels_(kernels), stream_(stream), table_(table), sketch_(*table.sketch()), x_(x), out_(out) {}

  Status run(int64_t n_best) {
    for (int64_t i = 0; i < x_.n_rows; ++i) quantize(i);
    if (packs()) pack();
    for (int level = 0; level < HeadSketch::kLevels; ++level) {
      BN_RETURN_IF_ERROR(pass(n_best, [&](int64_t begin, int64_t end, int thread, Likeliest* found) -> Result<int64_t> {
        return level == 0 ? sum_tiles(begin, end, thread, found) : refine(begin, end, thread, found);
      }));
      for (int64_t i = 0; i < x_.n_rows; ++i) BN_RETURN_IF_ERROR(raise_least(i, n_best));
    }
    return pass(n_best, [&](int64_t begin, int64_t end, int thread, Likeliest*) { return finish(begin, end, thread); });
  }

 private:
  // Between passes `out` holds, for each row, the sum of q times the codes read so far, or that it cannot be the best.
  static constexpr int32_t kRuledOut = std::numeric_limits<int32_t>::min();

  struct Exact {
    float logit;
    int64_t row;
  };
  // A row of x as the sketch sees it, x~ = q * inv_scale, with what its rounding loses.
  struct Input {
    const int8_t* q = nullptr;
    float inv_scale = 0;
    int32_t sum = 0;        // of q
    float reach = 0;        // |x| + |x - x~|, rounded up: what a row's error counts
    float loss = 0;         // |x - x~| + slack |x|, rounded up: what a row's length counts
    float least = kLowest;  // no logit below it is among the best
    Likeliest likeliest;
    std::array<Exact, kMaxBest> known;  // of the likeliest rows one level before
    int64_t n_known = 0;
  };

  // fn(begin, end, thread, found [inputs]) -> bytes read, for shares of tiles.
  template <class Fn>
  Status pass(int64_t n_best, const Fn& fn) {
    for (int64_t i = 0; i < x_.n_rows; ++i) inputs_[size_t(i)].likeliest.begin(n_best);
    std::mutex merging;
    std::optional<Error> failure;
    parallel_shares(stream_, sketch_.n_tiles(), [&](int64_t begin, int64_t end, int thread) {
      std::array<Likeliest, kInputsAtOnce> found;
      for (int64_t i = 0; i < x_.n_rows; ++i) found[size_t(i)].begin(n_best);
      Result<int64_t> n_bytes = fn(begin, end, thread, found.data());
      if (n_bytes) stream_.count_weight_bytes(*n_bytes);
      const std::lock_guard<std::mutex> lock(merging);
      if (!n_bytes) failure = std::move(n_bytes.error());
      for (int64_t i = 0; i < x_.n_rows; ++i) inputs_[size_t(i)].likeliest.offer(found[size_t(i)]);
    });
    if (failure) return *std::move(failure);
    return ok();
  }

  // The least exact logit of n_best rows, whichever they are: no row below it is among the best.
  Status raise_least(int64_t i, int64_t n_best) {
    Input& input = inputs_[size_t(i)];
    if (input.likeliest.n() < n_best) return ok();
    std::array<Exact, kMaxBest> found;
    float least = std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < n_best; ++j) {
      const int64_t row = input.likeliest.row(j);
      const auto known_end = input.known.begin() + input.n_known;
      const auto known = std::find_if(input.known.begin(), known_end, [&](const Exact& e) { return e.row == row; });
      if (known != known_end) {
        found[size_t(j)] = *known;
      } else {
        BN_ASSIGN_OR_RETURN(const float logit, exact(i, row, 0));
        found[size_t(j)] = {logit, row};
      }
      least = std::min(least, found[size_t(j)].logit);
    }
    std::copy_n(found.begin(), n_best, input.known.begin());
    input.n_known = n_best;
    input.least = std::max(input.least, least);
    return ok();
  }

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
    const double length = std::sqrt(squares) * kRoundUp, error = std::sqrt(rest_squares) * kRoundUp;
    const double slack = (double(n) / 16 + 64) * 0x1p-24;
    input.q = q;
    input.reach = float((length + error) * kRoundUp);
    input.loss = float((error + slack * length) * kRoundUp);
  }

  // The logits of n <= 32 rows from `row` on by their sums. The difference fits into 32 bits (HeadSketch::kMaxCols),
  // its terms need not.
  void to_logits(int level, const Input& input, int64_t row, int64_t n, const int32_t* sums, float* logits) const {
    const float* const steps = sketch_.steps() + row;
    const uint32_t unit = uint32_t(HeadSketch::unit(level));
    const uint32_t twice_unit = 2u * unit, centre = (uint32_t(HeadSketch::kCodes) - unit) * uint32_t(input.sum);
    const float scale = 0.5f * input.inv_scale;
    for (int64_t j = 0; j < n; ++j) {
      logits[j] = float(int32_t(twice_unit * uint32_t(sums[j]) - centre)) * (steps[j] * scale);
    }
  }
  // Rules out what cannot be the best of these rows and tells how many stay. A bound that is not a number rules nothing
  // out.
  int64_t rule_out(int level, const Input& input, int64_t row, int64_t n, int32_t* sums) const {
    const float* const errors = sketch_.errors(level) + row;
    const float* const lengths = sketch_.lengths() + row;
    const float reach = input.reach, loss = input.loss, least = input.least;
    float logits[kTileRows];
    to_logits(level, input, row, n, sums, logits);
    int32_t n_stay = 0;
    for (int64_t j = 0; j < n; ++j) {
      const bool below = logits[j] + (errors[j] * reach + lengths[j] * loss) < least;
      sums[j] = below ? kRuledOut : sums[j];
      n_stay += int32_t(sums[j] != kRuledOut);
    }
    return n_stay;
  }
  // Takes in the products with the lower codes of n <= 32 rows.
  void add_lower(int64_t i, int64_t row, int64_t n, const int32_t* lower, Likeliest& likeliest) const {
    int32_t sums[kTileRows];
    float logits[kTileRows];
    std::memcpy(sums, out_.row(i) + row, size_t(n) * sizeof(int32_t));
    for (int64_t j = 0; j < n; ++j) sums[j] = HeadSketch::unit(0) * sums[j] + lower[j];
    std::memcpy(out_.row(i) + row, sums, size_t(n) * sizeof(int32_t));
    to_logits(1, inputs_[size_t(i)], row, n, sums, logits);
    likeliest.offer_tile(logits, n, row);
  }
  int64_t rows_before(int64_t tile) const { return std::min(tile * kTileRows, table_.n_rows()); }

  // Several inputs together meet a tile that is unpacked once.
  bool packs() const {
    const MatmulKernels& matmul = kernels_.matmul;
    return matmul.matmul_tile != nullptr && x_.n_rows >= matmul.min_tokens;
  }
  int8_t* packed(int64_t first) const { return stream_.packed_inputs() + first * quantized_stride(x_.n_cols); }
  void pack() const {
    const int64_t n = kernels_.matmul.n_tokens, stride = quantized_stride(x_.n_cols);
    for (int64_t first = 0; first < x_.n_rows; first += n) {
      kernels_.matmul.pack_tokens(inputs_[size_t(first)].q, stride, std::min(n, x_.n_rows - first), stride / kBlockCols,
                                  packed(first));
    }
  }

  // sums [inputs, 32] of a tile.
  void sum_tile(int64_t tile, int thread, int32_t* sums) const {
    const uint8_t* const bytes = sketch_.tile(tile);
    const int64_t n_blocks = sketch_.n_blocks();
    if (!packs()) {
      for (int64_t i = 0; i < x_.n_rows; ++i) {
        kernels_.sketch.matvec_tile(bytes, n_blocks, inputs_[size_t(i)].q, sums + i * kTileRows);
      }
      return;
    }
    const int64_t n_codes = n_blocks * kSketchBlockCols * kTileRows;
    uint8_t* const codes = stream_.codes(thread);
    kernels_.sketch.unpack_tile(bytes, n_blocks, codes);
    std::memset(sums, 0, size_t(x_.n_rows * kTileRows) * sizeof(int32_t));
    if (kernels_.matmul.max_code >= kSketchMaxCode) return add_products(codes, 1, thread, sums);
    // By two bits at a time where a product is exact for no more.
    uint8_t* const part = codes + n_codes;
    for (int shift = 0; shift <= 4; shift += 2) {
      for (int64_t i = 0; i < n_codes; ++i) part[i] = uint8_t(codes[i] >> shift & 3);
      add_products(part, 1 << shift, thread, sums);
    }
  }
  // sums [inputs, 32] += the products with an unpacked tile, times `factor`.
  void add_products(const uint8_t* codes, int32_t factor, int thread, int32_t* sums) const {
    const MatmulKernels& matmul = kernels_.matmul;
    const int64_t n_code_blocks = sketch_.n_blocks() * (kSketchBlockCols / kBlockCols);
    int32_t* const products = stream_.sums(thread);
    for (int64_t first = 0; first < x_.n_rows; first += matmul.n_tokens) {
      const int64_t n = std::min(matmul.n_tokens, x_.n_rows - first);
      matmul.matmul_tile(codes, packed(first), n_code_blocks, n, products);
      int32_t* const to = sums + first * kTileRows;
      for (int64_t i = 0; i < n * kTileRows; ++i) to[i] += factor * products[i];
    }
  }

  // The upper codes of all rows.
  int64_t sum_tiles(int64_t begin, int64_t end, int thread, Likeliest* found) const {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileRows, n = rows_before(tile + 1) - first;
      int32_t sums[kInputsAtOnce * kTileRows];
      sum_tile(tile, thread, sums);
      for (int64_t i = 0; i < x_.n_rows; ++i) {
        float logits[kTileRows];
        to_logits(0, inputs_[size_t(i)], first, n, sums + i * kTileRows, logits);
        found[i].offer_tile(logits, n, first);
        std::memcpy(out_.row(i) + first, sums + i * kTileRows, size_t(n) * sizeof(int32_t));
      }
    }
    return (end - begin) * sketch_.tile_bytes();
  }

  // The lower codes of the rows that the upper ones leave open.
  int64_t refine(int64_t begin, int64_t end, int thread, Likeliest* found) const {
    SparseLists& lists = stream_.lists(thread);
    int64_t n_read = 0;
    for (int64_t i = 0; i < x_.n_rows; ++i) {
      const Input& input = inputs_[size_t(i)];
      int8_t* const spread = stream_.spread(thread);
      spread_token(input.q, quantized_stride(x_.n_cols), Packing{}, sketch_.row_bytes(), spread);
      for (int64_t row = rows_before(begin); row < rows_before(end);) {
        const int64_t last = std::min(row + SparseLists::kAtOnce, rows_before(end));
        int64_t n = 0;
        while (row < last) {
          int32_t sums[kTileRows];
          const int64_t n_rows = std::min(kTileRows, last - row);
          std::memcpy(sums, out_.row(i) + row, size_t(n_rows) * sizeof(int32_t));
          const int64_t n_stay = rule_out(0, input, row, n_rows, sums);
          if (n_stay == n_rows) {
            std::iota(lists.ids + n, lists.ids + n + n_rows, int32_t(row));
            n += n_rows;
          } else if (n_stay > 0) {
            for (int64_t j = 0; j < n_rows; ++j) {
              lists.ids[n] = int32_t(row + j);
              n += int64_t(sums[j] != kRuledOut);
            }
          }
          std::memcpy(out_.row(i) + row, sums, size_t(n_rows) * sizeof(int32_t));
          row += n_rows;
        }
        if (n == 0) continue;
        lists.n = n;
        lists.prefetch_first(sketch_.rows(), sketch_.row_bytes());
        kernels_.fields.dot_rows({sketch_.rows(), sketch_.row_bytes(), lists.ids, lists.fill_up(), spread, lists.sums});
        for (int64_t j = 0; j < n;) {  // rows that follow each other together
          int64_t n_run = 1;
          const int64_t most = std::min(kTileRows, n - j);
          if (lists.ids[j + most - 1] - lists.ids[j] == most - 1) n_run = most;
          add_lower(i, lists.ids[j], n_run, lists.sums + j, found[i]);
          j += n_run;
        }
        n_read += n;
      }
    }
    return n_read * sketch_.row_bytes();
  }

  // The exact logits of the rows that are still open, minus infinity for the others.
  Result<int64_t> finish(int64_t begin, int64_t end, int thread) const {
    int64_t n_read = 0;
    for (int64_t i = 0; i < x_.n_rows; ++i) {
      const Input& input = inputs_[size_t(i)];
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t first = tile * kTileRows, n = rows_before(tile + 1) - first;
        float* const out = out_.row(i) + first;
        int32_t sums[kTileRows];
        std::memcpy(sums, out, size_t(n) * sizeof(int32_t));
        std::fill_n(out, n, kLowest);
        if (rule_out(HeadSketch::kLevels - 1, input, first, n, sums) == 0) continue;
        for (int64_t j = 0; j < n; ++j) {
          if (sums[j] == kRuledOut) continue;
          BN_ASSIGN_OR_RETURN(out[j], exact(i, first + j, thread));
          ++n_read;
        }
      }
    }
    return n_read * table_.row_bytes();
  }

  Result<float> exact(int64_t i, int64_t row, int thread) const {
    float logit = 0;
    BN_RETURN_IF_ERROR(read_logits(kernels_, table_, row, 1, {x_.row(i), 1, x_.n_cols}, stream_.codes(thread), &logit));
    return logit;
  }

  const CpuKernels& kernels_;
  CpuStream& stream_;
  const CpuFloatMatrix& table_;
  const HeadSketch& sketch_;
  MatrixView x_, out_;
  std::array<Input, kInputsAtOnce> inputs_;
};

// All logits of x [1, n_cols], exactly. Its reading of the whole table is a fifth of the work of making the sketch: a
// first token, often the only one, does not wait for that.
Status read_all_logits(const CpuKernels& kernels, CpuStream& stream, const CpuFloatMatrix& table, MatrixView x,
                       MatrixView out) {
  const int64_t step = std::max(int64_t{1}, kReadPiece_bytes / table.row_bytes());
  const auto read = [&](int64_t begin, int64_t end) -> Status {
    std::vector<uint8_t> scratch(size_t(std::min(step, end - begin) * table.row_bytes()));
    for (int64_t row = begin; row < end; row += step) {
      const int64_t n = std::min(step, end - row);
      BN_RETURN_IF_ERROR(read_logits(kernels, table, row, n, x, scratch.data(), out.data + row));
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(stream.pool(), table.n_rows(), read));
  stream.count_weight_bytes(table.n_rows() * table.row_bytes());
  return ok();
}

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
  if (!weights.sketch()->ready()) {
    if (x.n_rows == 1 && weights.begin_first_search()) {
      return read_all_logits(kernels_, static_cast<CpuStream&>(stream), weights, x, out);
    }
    BN_RETURN_IF_ERROR(weights.fill_sketch(kernels_, stream.pool()));
  }
  for (int64_t first = 0; first < x.n_rows; first += kInputsAtOnce) {
    const int64_t n = std::min(kInputsAtOnce, x.n_rows - first);
    HeadSearch search(kernels_, static_cast<CpuStream&>(stream), weights, {x.row(first), n, x.n_cols},
                      {out.row(first), n, out.n_cols});
    BN_RETURN_IF_ERROR(search.run(n_best));
  }
  return ok();
}

}  // namespace bitnet
