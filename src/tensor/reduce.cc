#include "tensor/reduce.h"

#include "tensor/elementwise.h"
#include "tensor/reduce_axes.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <type_traits>

namespace bitnet {
namespace {

constexpr int64_t kLanes = 8;
constexpr int64_t kTileColumns = 128;

// What is done with two values, and with each before; `shift` is a number of the output's.
template <class C>
struct SumFold {
  static constexpr C kIdentity = 0;
  static C term(C x, C) { return x; }
  static C combine(C a, C b) {
    if constexpr (std::is_floating_point_v<C>) return a + b;
    return C(uint64_t(a) + uint64_t(b));
  }
};
template <class C>
struct ProductFold : SumFold<C> {
  static constexpr C kIdentity = 1;
  static C combine(C a, C b) {
    if constexpr (std::is_floating_point_v<C>) return a * b;
    return C(uint64_t(a) * uint64_t(b));
  }
};
template <class C>
struct MinimumFold : SumFold<C> {
  static constexpr C kIdentity =
      std::is_floating_point_v<C> ? std::numeric_limits<C>::infinity() : std::numeric_limits<C>::max();
  static C combine(C a, C b) { return a < b || a != a ? a : b; }
};
template <class C>
struct MaximumFold : SumFold<C> {
  static constexpr C kIdentity =
      std::is_floating_point_v<C> ? -std::numeric_limits<C>::infinity() : std::numeric_limits<C>::min();
  static C combine(C a, C b) { return a > b || a != a ? a : b; }
};
struct SquaresFold : SumFold<double> {
  static double term(double x, double shift) { return (x - shift) * (x - shift); }
};
struct NonzeroFold : SumFold<double> {
  static double term(double x, double) { return x != 0 ? 1.0 : 0.0; }
};

template <class Fold, class C>
C fold_lanes(const C* lanes, int64_t stride) {
  const auto lane = [&](int64_t i) { return lanes[i * stride]; };
  return Fold::combine(Fold::combine(Fold::combine(lane(0), lane(1)), Fold::combine(lane(2), lane(3))),
                       Fold::combine(Fold::combine(lane(4), lane(5)), Fold::combine(lane(6), lane(7))));
}

template <class Fold, class C>
C fold_values(ElementReader<C>& reader, int64_t n, C shift, C* block) {
  C total = Fold::kIdentity;
  for (int64_t left = n; left > 0; left -= kBlockValues) {
    const int64_t count = std::min(left, kBlockValues);
    const C* const x = reader.read(count, block);
    C lanes[kLanes];
    std::fill_n(lanes, kLanes, Fold::kIdentity);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) lanes[l] = Fold::combine(lanes[l], Fold::term(x[i + l], shift));
    }
    for (; i < count; ++i) lanes[i % kLanes] = Fold::combine(lanes[i % kLanes], Fold::term(x[i], shift));
    total = Fold::combine(total, fold_lanes<Fold>(lanes, 1));
  }
  return total;
}

// The same, to the same bits, for some outputs side by side whose values lie beside each other.
template <class Fold, class C>
void fold_columns(const TensorView& x, const ReducedAxes& axes, int64_t offset, int64_t n_columns, const C* shifts,
                  C* out) {
  const Gather<C> gather = gather_of<C>(x.dtype());
  const int64_t value_bytes = dtype_info(x.dtype()).block_bytes, stride = axes.kept_strides.back();
  StridedWalk walk(axes.reduced_shape, axes.reduced_strides);
  C row[kTileColumns], lanes[kLanes * kTileColumns];
  std::fill_n(out, n_columns, Fold::kIdentity);
  std::fill_n(lanes, kLanes * kTileColumns, Fold::kIdentity);
  for (int64_t r = 0; r < axes.n_reduced; ++r) {
    gather(x.data() + (offset + walk.offset()) * value_bytes, stride, n_columns, row);
    walk.advance(1);
    C* const lane = lanes + r % kLanes * kTileColumns;
    for (int64_t j = 0; j < n_columns; ++j) lane[j] = Fold::combine(lane[j], Fold::term(row[j], shifts[j]));
    if (r % kBlockValues != kBlockValues - 1 && r != axes.n_reduced - 1) continue;
    for (int64_t j = 0; j < n_columns; ++j) {
      out[j] = Fold::combine(out[j], fold_lanes<Fold>(lanes + j, kTileColumns));
    }
    std::fill_n(lanes, kLanes * kTileColumns, Fold::kIdentity);
  }
}

// One value an output. shifts: one an output, or none where the fold looks at none.
template <class Fold, class C>
std::vector<C> folded(const TensorView& x, const ReducedAxes& axes, const std::vector<C>& shifts = {}) {
  std::vector<C> out(size_t(axes.n_kept), Fold::kIdentity);
  if (axes.n_reduced == 0 || axes.n_kept == 0) return out;
  const bool across = !axes.kept_shape.empty() && axes.kept_shape.back() >= 4 && !axes.reduced_shape.empty() &&
                      std::abs(axes.kept_strides.back()) < std::abs(axes.reduced_strides.back());
  if (!across) {
    alignas(64) C block[kBlockValues];
    for_each_output<C>(x, axes, [&](int64_t i, ElementReader<C>& reader) {
      const C shift = shifts.empty() ? C(0) : shifts[size_t(i)];
      out[size_t(i)] = fold_values<Fold>(reader, axes.n_reduced, shift, block);
    });
    return out;
  }
  const int64_t n_columns = axes.kept_shape.back();
  StridedWalk rows({axes.kept_shape.begin(), axes.kept_shape.end() - 1},
                   {axes.kept_strides.begin(), axes.kept_strides.end() - 1});
  const C no_shifts[kTileColumns] = {};
  for (int64_t i = 0; i < axes.n_kept; i += n_columns) {
    for (int64_t j = 0; j < n_columns; j += kTileColumns) {
      const int64_t n = std::min(kTileColumns, n_columns - j);
      fold_columns<Fold>(x, axes, rows.offset() + j * axes.kept_strides.back(), n,
                         shifts.empty() ? no_shifts : shifts.data() + i + j, out.data() + i + j);
    }
    rows.advance(1);
  }
  return out;
}

template <template <class> class Fold>
Result<Tensor> folded_exactly(DType type, const TensorView& x, const ReducedAxes& axes) {
  if (is_float(x.dtype())) return tensor_of(type, axes.out_shape, folded<Fold<double>>(x, axes, std::vector<double>()));
  if (x.dtype() == DType::kU64) {
    return tensor_of(type, axes.out_shape, folded<Fold<uint64_t>>(x, axes, std::vector<uint64_t>()));
  }
  return tensor_of(type, axes.out_shape, folded<Fold<int64_t>>(x, axes, std::vector<int64_t>()));
}

std::vector<double> means(const TensorView& x, const ReducedAxes& axes) {
  std::vector<double> out = folded<SumFold<double>>(x, axes, std::vector<double>());
  for (double& value : out) value /= double(axes.n_reduced);
  return out;
}

}  // namespace

Result<ReducedAxes> ReducedAxes::of(const TensorView& x, const ReduceOptions& options) {
  BN_RETURN_IF_ERROR(check_elements(x.dtype()));
  std::vector<bool> taken(x.shape().size(), options.axes.empty());
  for (const int64_t given : options.axes) {
    BN_ASSIGN_OR_RETURN(const int64_t axis, checked_axis(given, x.shape()));
    if (taken[size_t(axis)]) return invalid_argument("axis {} named twice", axis);
    taken[size_t(axis)] = true;
  }
  ReducedAxes axes;
  for (size_t i = 0; i < taken.size(); ++i) {
    (taken[i] ? axes.reduced_shape : axes.kept_shape).push_back(x.shape()[i]);
    (taken[i] ? axes.reduced_strides : axes.kept_strides).push_back(x.strides()[i]);
    (taken[i] ? axes.n_reduced : axes.n_kept) *= x.shape()[i];
    if (!taken[i]) axes.out_shape.push_back(x.shape()[i]);
    if (taken[i] && options.keep_dims) axes.out_shape.push_back(1);
  }
  return axes;
}

Result<Tensor> reduce(Reduction reduction, TensorView x, const ReduceOptions& options) {
  BN_ASSIGN_OR_RETURN(const ReducedAxes axes, ReducedAxes::of(x, options));
  const DType wide = is_float(x.dtype()) || x.dtype() == DType::kU64 ? x.dtype() : DType::kI64;
  const double n = double(axes.n_reduced);
  switch (reduction) {
    case Reduction::kSum: return folded_exactly<SumFold>(wide, x, axes);
    case Reduction::kProduct: return folded_exactly<ProductFold>(wide, x, axes);
    case Reduction::kMinimum:
    case Reduction::kMaximum:
      if (axes.n_reduced == 0 && axes.n_kept > 0) {
        return invalid_argument("a tensor of shape {} has no least or largest value along these axes",
                                shape_string(x.shape()));
      }
      return reduction == Reduction::kMinimum ? folded_exactly<MinimumFold>(x.dtype(), x, axes)
                                              : folded_exactly<MaximumFold>(x.dtype(), x, axes);
    case Reduction::kMean: return tensor_of(mean_type(x.dtype()), axes.out_shape, means(x, axes));
    case Reduction::kVariance:
    case Reduction::kStandardDeviation: {
      std::vector<double> values = folded<SquaresFold>(x, axes, means(x, axes));
      for (double& value : values) {
        value /= std::max(n - double(options.ddof), 0.0);
        if (reduction == Reduction::kStandardDeviation) value = std::sqrt(value);
      }
      return tensor_of(mean_type(x.dtype()), axes.out_shape, values);
    }
    case Reduction::kCountNonzero:
    case Reduction::kAny:
    case Reduction::kAll: break;
  }
  std::vector<double> counts = folded<NonzeroFold>(x, axes, std::vector<double>());
  if (reduction == Reduction::kCountNonzero) return tensor_of(DType::kI64, axes.out_shape, counts);
  for (double& count : counts) count = reduction == Reduction::kAny ? count > 0 : count == n;
  return tensor_of(DType::kBool, axes.out_shape, counts);
}

Result<double> relative_error(TensorView a, TensorView b) {
  BN_ASSIGN_OR_RETURN(const Tensor wide, cast(a, DType::kF64));
  BN_ASSIGN_OR_RETURN(const Tensor off, subtract(wide, b));
  const auto squares = [](const TensorView& x) -> Result<double> {
    BN_ASSIGN_OR_RETURN(const ReducedAxes axes, ReducedAxes::of(x, {}));
    return folded<SquaresFold>(x, axes, std::vector<double>{0.0})[0];
  };
  BN_ASSIGN_OR_RETURN(const double error, squares(off));
  BN_ASSIGN_OR_RETURN(const double norm, squares(wide));
  return norm > 0 ? std::sqrt(error / norm) : error > 0 ? 1.0 : 0.0;
}

Result<std::optional<int64_t>> find_nonfinite(TensorView x) {
  BN_RETURN_IF_ERROR(check_elements(x.dtype()));
  std::optional<int64_t> none;
  if (!is_float(x.dtype())) return none;
  ElementReader<double> reader(x);
  double block[kBlockValues];
  const int64_t n = x.n_values();
  for (int64_t at = 0; at < n; at += kBlockValues) {
    const int64_t count = std::min(kBlockValues, n - at);
    const double* const values = reader.read(count, block);
    const double* const bad = std::find_if(values, values + count, [](double v) { return !std::isfinite(v); });
    if (bad != values + count) return std::optional(at + (bad - values));
  }
  return none;
}

}  // namespace bitnet
