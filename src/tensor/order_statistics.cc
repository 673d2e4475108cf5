#include "tensor/reduce_axes.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bitnet {
namespace {

// statistic(values) of those of each output, which it may put into another order; NaN where one is NaN or none is
// there.
template <class C, class Statistic>
std::vector<double> ordered_as(const TensorView& x, const ReducedAxes& axes, const Statistic& statistic) {
  std::vector<double> out(size_t(axes.n_kept), std::numeric_limits<double>::quiet_NaN());
  std::vector<C> values(size_t(axes.n_reduced), C(0));
  if (values.empty()) return out;
  for_each_output<C>(x, axes, [&](int64_t i, ElementReader<C>& reader) {
    const C* const read = reader.read(axes.n_reduced, values.data());
    if (read != values.data()) std::copy_n(read, values.size(), values.data());
    if (std::any_of(values.begin(), values.end(), [](C v) { return std::isnan(v); })) return;
    out[size_t(i)] = statistic(values);
  });
  return out;
}

template <class Statistic>
Result<Tensor> ordered(const TensorView& x, const ReduceOptions& options, const Statistic& statistic) {
  BN_ASSIGN_OR_RETURN(const ReducedAxes axes, ReducedAxes::of(x, options));
  const bool narrow = is_float(x.dtype()) && x.dtype() != DType::kF64;
  return tensor_of(mean_type(x.dtype()), axes.out_shape,
                   narrow ? ordered_as<float>(x, axes, statistic) : ordered_as<double>(x, axes, statistic));
}

// The value at a place in ascending order and the one behind it, which is the same at the end.
template <class C>
std::pair<double, double> neighbours(std::vector<C>& values, size_t place) {
  const auto at = values.begin() + int64_t(place);
  std::nth_element(values.begin(), at, values.end());
  return {double(*at), double(at + 1 == values.end() ? *at : *std::min_element(at + 1, values.end()))};
}

template <class C, class Better>
void find_best(const TensorView& x, const ReducedAxes& axes, const Better& better, std::vector<int64_t>& out) {
  alignas(64) C block[kBlockValues];
  for_each_output<C>(x, axes, [&](int64_t i, ElementReader<C>& reader) {
    C best = 0;
    int64_t place = -1;
    for (int64_t at = 0; at < axes.n_reduced; at += kBlockValues) {
      const int64_t n = std::min(kBlockValues, axes.n_reduced - at);
      const C* const values = reader.read(n, block);
      for (int64_t k = 0; k < n; ++k) {
        const bool first_nan = values[k] != values[k] && best == best;
        if (place >= 0 && !first_nan && !better(values[k], best)) continue;
        best = values[k];
        place = at + k;
      }
    }
    out[size_t(i)] = place;
  });
}

template <class Better>
Result<Tensor> places(const TensorView& x, const ReduceOptions& options, const Better& better) {
  if (options.axes.size() > 1) {
    return invalid_argument("the place of a value along {} axes: name one, or none for all", options.axes.size());
  }
  BN_ASSIGN_OR_RETURN(const ReducedAxes axes, ReducedAxes::of(x, options));
  if (axes.n_reduced == 0 && axes.n_kept > 0) {
    return invalid_argument("a tensor of shape {} has no least or largest value along this axis",
                            shape_string(x.shape()));
  }
  std::vector<int64_t> out(size_t(axes.n_kept), 0);
  visit_computed(x.dtype(), [&](auto computed) { find_best<decltype(computed)>(x, axes, better, out); });
  return tensor_of(DType::kI64, axes.out_shape, out);
}

}  // namespace

Result<Tensor> median(TensorView x, const ReduceOptions& options) {
  return ordered(x, options, [](auto& values) {
    const auto [low, high] = neighbours(values, (values.size() - 1) / 2);
    return values.size() % 2 == 1 ? low : (low + high) / 2;
  });
}

Result<Tensor> quantile(TensorView x, double q, const ReduceOptions& options) {
  if (!(q >= 0 && q <= 1)) return invalid_argument("a quantile of {}, expected 0 to 1", q);
  return ordered(x, options, [q](auto& values) {
    const double place = q * double(values.size() - 1), below = std::floor(place), share = place - below;
    const auto [low, high] = neighbours(values, size_t(below));
    return share < 0.5 ? low + (high - low) * share : high - (high - low) * (1 - share);
  });
}

Result<Tensor> argmin(TensorView x, const ReduceOptions& options) {
  return places(x, options, [](auto a, auto b) { return a < b; });
}
Result<Tensor> argmax(TensorView x, const ReduceOptions& options) {
  return places(x, options, [](auto a, auto b) { return a > b; });
}

}  // namespace bitnet
