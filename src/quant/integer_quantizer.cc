#include "quant/integer_quantizer.h"

#include "base/rng.h"
#include "tensor/elementwise.h"
#include "tensor/reduce.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

struct Range {
  float low = 0.0f, high = 0.0f;
};

class Quantizer {
 public:
  // groups: a view [n_groups, values a group] of the values (granularity.h).
  Quantizer(std::span<const float> values, const TensorView& groups, const IntegerOptions& options)
      : values_(values), groups_(groups), options_(options) {}

  Result<IntegerCodes> run(int64_t n_rows, int64_t n_cols) {
    const size_t n_groups = size_t(groups_.shape()[0]);
    out_ = {options_, n_rows, n_cols, std::vector<int16_t>(values_.size()), std::vector<float>(n_groups), {}};
    if (!options_.symmetric) out_.zeros.resize(n_groups);
    BN_ASSIGN_OR_RETURN(const Tensor least, min(groups_, {{1}}));
    BN_ASSIGN_OR_RETURN(const Tensor largest, max(groups_, {{1}}));
    BN_ASSIGN_OR_RETURN(const auto low, least.values<float>());
    BN_ASSIGN_OR_RETURN(const auto high, largest.values<float>());
    for (size_t g = 0; g < n_groups; ++g) {
      quantize_group(int64_t(g), {std::min(0.0f, low[g]), std::max(0.0f, high[g])});
    }
    return std::move(out_);
  }

 private:
  // fn(index into the values) for the members of a group.
  template <class Fn>
  void for_each(int64_t group, const Fn& fn) const {
    const int64_t begin = group * groups_.strides()[0], stride = groups_.strides()[1];
    const int64_t n = groups_.shape()[1];
    if (stride == 1) {  // a loop of its own, for the compiler to vectorise
      for (int64_t i = begin; i < begin + n; ++i) fn(size_t(i));
    } else {
      for (int64_t i = 0; i < n; ++i) fn(size_t(begin + i * stride));
    }
  }

  int top() const { return options_.symmetric ? (1 << (options_.bits - 1)) - 1 : (1 << options_.bits) - 1; }

  struct Grid {
    float scale, inverse;
    int zero, low, high;
  };
  Grid grid_of(Range range) const {
    if (options_.symmetric) {
      const float scale = std::max(std::max(-range.low, range.high), 1e-30f) / float(top());
      return {scale, 1.0f / scale, 0, -top(), top()};
    }
    const float low = std::min(range.low, 0.0f), high = std::max(range.high, 0.0f);  // 0 stays exact
    const float scale = std::max(high - low, 1e-30f) / float(top());
    const int zero = std::clamp(int(std::nearbyint(-low / scale)), 0, top());
    return {scale, 1.0f / scale, zero, 0, top()};
  }
  static int nearest(float v, const Grid& grid) {
    const float q = std::clamp(v * grid.inverse + float(grid.zero), float(grid.low) - 1.0f, float(grid.high) + 1.0f);
    return std::clamp(int(std::nearbyint(q)), grid.low, grid.high);
  }
  int rounded(size_t i, const Grid& grid) const {
    if (!options_.stochastic_seed) return nearest(values_[i], grid);
    const float q = std::clamp(values_[i] * grid.inverse + float(grid.zero), float(grid.low), float(grid.high));
    const float below = std::floor(q);
    const CounterRng rng(*options_.stochastic_seed);
    return std::clamp(int(below) + (rng.uniform(i) < double(q - below)), grid.low, grid.high);
  }

  // Shrinks both ends together: 0.5 to 1 of the range in steps of a hundredth.
  Grid searched(int64_t group, Range range) const {
    Grid best = grid_of(range);
    double best_error = -1;
    for (int step = 100; step >= 50; --step) {
      const float share = 0.01f * float(step);
      const Grid grid = grid_of({range.low * share, range.high * share});
      double error = 0;
      for_each(group, [&](size_t i) {
        const double off = double(grid.scale) * (nearest(values_[i], grid) - grid.zero) - double(values_[i]);
        error += off * off;
      });
      if (best_error >= 0 && error >= best_error) continue;
      best_error = error;
      best = grid;
    }
    return best;
  }

  void quantize_group(int64_t group, Range range) {
    if (options_.bits == 1 && options_.symmetric) {
      double sum = 0;
      for_each(group, [&](size_t i) {
        sum += double(std::fabs(values_[i]));
        out_.q[i] = values_[i] < 0.0f ? -1 : 1;
      });
      out_.scales[size_t(group)] = float(sum / double(groups_.shape()[1]));
      return;
    }
    const Grid grid = options_.search ? searched(group, range) : grid_of(range);
    for_each(group, [&](size_t i) { out_.q[i] = int16_t(rounded(i, grid)); });
    out_.scales[size_t(group)] = grid.scale;
    if (!options_.symmetric) out_.zeros[size_t(group)] = int16_t(grid.zero);
  }

  std::span<const float> values_;
  const TensorView groups_;
  const IntegerOptions options_;
  IntegerCodes out_;
};

}  // namespace

size_t IntegerCodes::group_of(int64_t row, int64_t col) const {
  switch (options.granularity) {
    case Granularity::kTensor: return 0;
    case Granularity::kRow: return size_t(row);
    case Granularity::kColumn: return size_t(col);
    case Granularity::kGroup: return size_t(row * (n_cols / options.group_cols) + col / options.group_cols);
  }
  return 0;
}

Result<IntegerCodes> quantize_integers(std::span<const float> values, int64_t n_rows, int64_t n_cols,
                                       const IntegerOptions& options) {
  if (options.bits < 1 || options.bits > 8) return invalid_argument("{} bits, expected 1 to 8", options.bits);
  BN_ASSIGN_OR_RETURN(const TensorView matrix, finite_matrix(values, n_rows, n_cols));
  BN_ASSIGN_OR_RETURN(const TensorView groups, grouped(matrix, options.granularity, options.group_cols));
  return Quantizer(values, groups, options).run(n_rows, n_cols);
}

Status dequantize_integers(const IntegerCodes& codes, std::span<float> out) {
  BN_ASSIGN_OR_RETURN(const auto to, MutableTensorView::of(out, {codes.n_rows, codes.n_cols}));
  BN_ASSIGN_OR_RETURN(const TensorView q, TensorView::of(std::span(codes.q), to.shape()));
  BN_ASSIGN_OR_RETURN(TensorView groups, grouped(q, codes.options.granularity, codes.options.group_cols));
  const Shape one_a_group = {groups.shape()[0], 1};
  Tensor steps;
  if (!codes.zeros.empty()) {
    BN_ASSIGN_OR_RETURN(const TensorView zeros, TensorView::of(std::span(codes.zeros), one_a_group));
    BN_ASSIGN_OR_RETURN(steps, subtract(groups, zeros));
    groups = steps.view();
  }
  BN_ASSIGN_OR_RETURN(const TensorView scales, TensorView::of(std::span(codes.scales), one_a_group));
  BN_ASSIGN_OR_RETURN(const Tensor values, multiply(groups, scales));
  const bool turned = codes.options.granularity == Granularity::kColumn;
  BN_ASSIGN_OR_RETURN(const TensorView from, turned ? values.view().transpose() : values.view().reshape(to.shape()));
  return assign(to, from);
}

std::vector<std::byte> pack_bits(std::span<const uint8_t> values, int bits) {
  std::vector<std::byte> out((values.size() * size_t(bits) + 7) / 8);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t at = i * size_t(bits);
    const unsigned shifted = unsigned(values[i] & ((1u << bits) - 1)) << at % 8;
    out[at / 8] |= std::byte(shifted & 255u);
    if (shifted > 255u) out[at / 8 + 1] |= std::byte(shifted >> 8);
  }
  return out;
}

Result<std::vector<uint8_t>> unpack_bits(std::span<const std::byte> bytes, int bits, int64_t n) {
  if (bits < 1 || bits > 8 || n < 0 || n > INT64_MAX / 8) return invalid_argument("{} values of {} bits", n, bits);
  const size_t expected = (size_t(n) * size_t(bits) + 7) / 8;
  if (bytes.size() != expected) {
    return invalid_input("{} values of {} bits take {} bytes, found {}", n, bits, expected, bytes.size());
  }
  std::vector<uint8_t> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t at = i * size_t(bits);
    unsigned word = unsigned(bytes[at / 8]);
    if (at / 8 + 1 < bytes.size()) word |= unsigned(bytes[at / 8 + 1]) << 8;
    values[i] = uint8_t(word >> at % 8 & ((1u << bits) - 1));
  }
  return values;
}

}  // namespace bitnet
