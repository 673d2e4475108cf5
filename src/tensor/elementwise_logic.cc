#include "tensor/elementwise_support.h"

#include <cmath>

namespace bitnet {
namespace {

// test(a, b) -> bool for each pair of values, computed in C.
template <class C, class Test>
Result<Tensor> tested(const TensorView& a, const TensorView& b, Shape shape, const Test& test) {
  BN_ASSIGN_OR_RETURN(const TensorView wide_a, a.broadcast_to(shape));
  BN_ASSIGN_OR_RETURN(const TensorView wide_b, b.broadcast_to(shape));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(DType::kBool, std::move(shape)));
  ElementReader<C> read_a(wide_a), read_b(wide_b);
  alignas(64) C a_block[kBlockValues], b_block[kBlockValues];
  auto* results = reinterpret_cast<uint8_t*>(out.bytes().data());
  for (int64_t left = out.n_values(); left > 0;) {
    const int64_t n = std::min(left, kBlockValues);
    const C *const x = read_a.read(n, a_block), *const y = read_b.read(n, b_block);
    for (int64_t i = 0; i < n; ++i) results[i] = uint8_t(test(x[i], y[i]));
    results += n;
    left -= n;
  }
  return out;
}

template <class C>
Result<Tensor> compared(CompareOp op, const TensorView& a, const TensorView& b, Shape shape) {
  switch (op) {
    case CompareOp::kEqual: return tested<C>(a, b, std::move(shape), [](C x, C y) { return x == y; });
    case CompareOp::kNotEqual: return tested<C>(a, b, std::move(shape), [](C x, C y) { return x != y; });
    case CompareOp::kLess: return tested<C>(a, b, std::move(shape), [](C x, C y) { return x < y; });
    case CompareOp::kLessEqual: return tested<C>(a, b, std::move(shape), [](C x, C y) { return x <= y; });
    case CompareOp::kGreater: return tested<C>(a, b, std::move(shape), [](C x, C y) { return x > y; });
    case CompareOp::kGreaterEqual: break;
  }
  return tested<C>(a, b, std::move(shape), [](C x, C y) { return x >= y; });
}

// test(x) of every value in double, in which NaN, infinity and zero are those of any type.
template <class Test>
Result<Tensor> tested(const TensorView& x, const Test& test) {
  BN_RETURN_IF_ERROR(check_elements(x.dtype()));
  return tested<double>(x, x, x.shape(), [&](double v, double) { return test(v); });
}

template <class Test>
Result<Tensor> tested(const TensorView& a, const TensorView& b, const Test& test) {
  BN_RETURN_IF_ERROR(check_elements(a.dtype()));
  BN_RETURN_IF_ERROR(check_elements(b.dtype()));
  BN_ASSIGN_OR_RETURN(Shape shape, broadcast_shapes(a.shape(), b.shape()));
  return tested<double>(a, b, std::move(shape), test);
}

template <class C>
void choose(const TensorView& condition, const TensorView& a, const TensorView& b, const MutableTensorView& out) {
  ElementReader<double> read_condition(condition);
  alignas(64) double wanted[kBlockValues];
  for_blocks<C>(a, b, out, false, [&](const C* x, const C* y, C* results, int64_t n) {
    const double* const first = read_condition.read(n, wanted);
    for (int64_t i = 0; i < n; ++i) results[i] = first[i] != 0 ? x[i] : y[i];
  });
}

}  // namespace

Result<Tensor> compare(CompareOp op, TensorView a, TensorView b) {
  BN_ASSIGN_OR_RETURN(const DType type, promote(a.dtype(), b.dtype()));
  BN_ASSIGN_OR_RETURN(Shape shape, broadcast_shapes(a.shape(), b.shape()));
  return visit_computed(type, [&](auto computed) { return compared<decltype(computed)>(op, a, b, std::move(shape)); });
}

Result<Tensor> compare(CompareOp op, TensorView a, double b) {
  BN_ASSIGN_OR_RETURN(const Tensor number, number_beside(b, a.dtype()));
  return compare(op, a, number.view());
}

Result<Tensor> is_nan(TensorView x) {
  return tested(x, [](double v) { return std::isnan(v); });
}
Result<Tensor> is_finite(TensorView x) {
  return tested(x, [](double v) { return std::isfinite(v); });
}
Result<Tensor> logical_not(TensorView x) {
  return tested(x, [](double v) { return v == 0; });
}
Result<Tensor> logical_and(TensorView a, TensorView b) {
  return tested(a, b, [](double x, double y) { return x != 0 && y != 0; });
}
Result<Tensor> logical_or(TensorView a, TensorView b) {
  return tested(a, b, [](double x, double y) { return x != 0 || y != 0; });
}

Result<Tensor> where(TensorView condition, TensorView a, TensorView b) {
  BN_RETURN_IF_ERROR(check_elements(condition.dtype()));
  BN_ASSIGN_OR_RETURN(const DType type, promote(a.dtype(), b.dtype()));
  BN_ASSIGN_OR_RETURN(Shape shape, broadcast_shapes(a.shape(), b.shape()));
  BN_ASSIGN_OR_RETURN(shape, broadcast_shapes(shape, condition.shape()));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(type, shape));
  BN_ASSIGN_OR_RETURN(condition, condition.broadcast_to(shape));
  BN_ASSIGN_OR_RETURN(a, a.broadcast_to(shape));
  BN_ASSIGN_OR_RETURN(b, b.broadcast_to(shape));
  visit_computed(type, [&](auto computed) { choose<decltype(computed)>(condition, a, b, out.mutable_view()); });
  return out;
}

Result<Tensor> clip(TensorView x, double low, double high) {
  BN_ASSIGN_OR_RETURN(const Tensor lowest, number_beside(low, x.dtype()));
  BN_ASSIGN_OR_RETURN(const Tensor highest, number_beside(high, x.dtype()));
  BN_ASSIGN_OR_RETURN(const Tensor from_below, maximum(x, lowest));
  return minimum(from_below, highest);
}

}  // namespace bitnet
