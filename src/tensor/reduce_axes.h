#pragma once

#include "tensor/element_stream.h"
#include "tensor/reduce.h"

#include <cstdint>
#include <vector>

namespace bitnet {

// A view's axes as those that stay and those that are taken together, each in their order.
struct ReducedAxes {
  Shape kept_shape, reduced_shape;
  std::vector<int64_t> kept_strides, reduced_strides;
  Shape out_shape;
  int64_t n_kept = 1, n_reduced = 1;

  static Result<ReducedAxes> of(const TensorView& x, const ReduceOptions& options);
};

// The type of means and the like.
inline DType mean_type(DType x) { return is_float(x) ? x : DType::kF64; }

// fn(i, reader at the first of the values of output i) for every output in order.
template <class C, class Fn>
void for_each_output(const TensorView& x, const ReducedAxes& axes, const Fn& fn) {
  if (axes.n_kept == 0) return;
  const TensorView part(x.dtype(), axes.reduced_shape, axes.reduced_strides, x.data());
  ElementReader<C> reader(part);
  StridedWalk kept(axes.kept_shape, axes.kept_strides);
  for (int64_t i = 0; i < axes.n_kept; ++i) {
    reader.restart(kept.offset(), part);
    fn(i, reader);
    kept.advance(1);
  }
}

// A tensor of `type` with these values.
template <class C>
Result<Tensor> tensor_of(DType type, const Shape& shape, const std::vector<C>& values) {
  BN_ASSIGN_OR_RETURN(const TensorView view, TensorView::of(std::span<const C>(values), shape));
  return cast(view, type);
}

}  // namespace bitnet
