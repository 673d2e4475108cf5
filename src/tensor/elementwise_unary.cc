#include "tensor/elementwise_support.h"

#include <cmath>
#include <type_traits>

namespace bitnet {
namespace {

template <class C>
C sign_of(C v) {
  if constexpr (std::is_floating_point_v<C>) {
    if (v != v) return v;
  }
  return C(v > 0) - C(v < C(0));
}

// What integers have too.
template <UnaryOp kOp, class C>
C compute_any(C v) {
  constexpr bool kFloats = std::is_floating_point_v<C>;
  using W = std::conditional_t<kFloats, C, uint64_t>;
  if constexpr (kOp == UnaryOp::kNegative) {
    if constexpr (kFloats) return -v;
    return C(0 - uint64_t(v));
  }
  if constexpr (kOp == UnaryOp::kAbsolute) {
    if constexpr (kFloats) return std::fabs(v);
    return v < C(0) ? C(0 - uint64_t(v)) : v;
  }
  if constexpr (kOp == UnaryOp::kSign) return sign_of(v);
  if constexpr (kOp == UnaryOp::kSquare) return C(W(v) * W(v));
  if constexpr (kFloats) {
    if constexpr (kOp == UnaryOp::kFloor) return std::floor(v);
    if constexpr (kOp == UnaryOp::kCeil) return std::ceil(v);
    if constexpr (kOp == UnaryOp::kRound) return std::nearbyint(v);
    if constexpr (kOp == UnaryOp::kTruncate) return std::trunc(v);
  }
  return v;
}

template <UnaryOp kOp, class C>
C compute_float(C v) {
  if constexpr (kOp == UnaryOp::kSqrt) return std::sqrt(v);
  if constexpr (kOp == UnaryOp::kReciprocal) return C(1) / v;
  if constexpr (kOp == UnaryOp::kExp) return std::exp(v);
  if constexpr (kOp == UnaryOp::kExpm1) return std::expm1(v);
  if constexpr (kOp == UnaryOp::kLog) return std::log(v);
  if constexpr (kOp == UnaryOp::kLog2) return std::log2(v);
  if constexpr (kOp == UnaryOp::kLog1p) return std::log1p(v);
  if constexpr (kOp == UnaryOp::kSin) return std::sin(v);
  if constexpr (kOp == UnaryOp::kCos) return std::cos(v);
  if constexpr (kOp == UnaryOp::kTan) return std::tan(v);
  if constexpr (kOp == UnaryOp::kSinh) return std::sinh(v);
  if constexpr (kOp == UnaryOp::kCosh) return std::cosh(v);
  if constexpr (kOp == UnaryOp::kTanh) return std::tanh(v);
  if constexpr (kOp == UnaryOp::kErf) return std::erf(v);
}

template <class C>
using UnaryBlock = void (*)(const C* x, C* out, int64_t n);

template <UnaryOp kOp, class C>
void any_block(const C* BN_RESTRICT x, C* BN_RESTRICT out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = compute_any<kOp>(x[i]);
}
template <UnaryOp kOp, class C>
void float_block(const C* BN_RESTRICT x, C* BN_RESTRICT out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = compute_float<kOp>(x[i]);
}

// Null for what integers have not.
template <class C>
UnaryBlock<C> block_of(UnaryOp op) {
  switch (op) {
    case UnaryOp::kNegative: return any_block<UnaryOp::kNegative, C>;
    case UnaryOp::kAbsolute: return any_block<UnaryOp::kAbsolute, C>;
    case UnaryOp::kSign: return any_block<UnaryOp::kSign, C>;
    case UnaryOp::kSquare: return any_block<UnaryOp::kSquare, C>;
    case UnaryOp::kFloor: return any_block<UnaryOp::kFloor, C>;
    case UnaryOp::kCeil: return any_block<UnaryOp::kCeil, C>;
    case UnaryOp::kRound: return any_block<UnaryOp::kRound, C>;
    case UnaryOp::kTruncate: return any_block<UnaryOp::kTruncate, C>;
    default: break;
  }
  if constexpr (std::is_floating_point_v<C>) {
    switch (op) {
      case UnaryOp::kSqrt: return float_block<UnaryOp::kSqrt, C>;
      case UnaryOp::kReciprocal: return float_block<UnaryOp::kReciprocal, C>;
      case UnaryOp::kExp: return float_block<UnaryOp::kExp, C>;
      case UnaryOp::kExpm1: return float_block<UnaryOp::kExpm1, C>;
      case UnaryOp::kLog: return float_block<UnaryOp::kLog, C>;
      case UnaryOp::kLog2: return float_block<UnaryOp::kLog2, C>;
      case UnaryOp::kLog1p: return float_block<UnaryOp::kLog1p, C>;
      case UnaryOp::kSin: return float_block<UnaryOp::kSin, C>;
      case UnaryOp::kCos: return float_block<UnaryOp::kCos, C>;
      case UnaryOp::kTan: return float_block<UnaryOp::kTan, C>;
      case UnaryOp::kSinh: return float_block<UnaryOp::kSinh, C>;
      case UnaryOp::kCosh: return float_block<UnaryOp::kCosh, C>;
      case UnaryOp::kTanh: return float_block<UnaryOp::kTanh, C>;
      case UnaryOp::kErf: return float_block<UnaryOp::kErf, C>;
      default: break;
    }
  }
  return nullptr;
}

Result<DType> type_of(UnaryOp op, DType x) {
  BN_RETURN_IF_ERROR(check_elements(x));
  if (x == DType::kBool && op == UnaryOp::kNegative)
    return unsupported("BOOL values have no negative: use logical_not");
  return op >= UnaryOp::kSqrt && !is_float(x) ? DType::kF64 : x;
}

Status apply_as(UnaryOp op, DType type, const TensorView& x, const MutableTensorView& out) {
  Operands<1> operands{{x}};
  BN_RETURN_IF_ERROR(operands.prepare(out));
  visit_computed(type, [&](auto computed) {
    using C = decltype(computed);
    for_blocks<C>(operands.views[0], out, operands.staged, block_of<C>(op));
  });
  return ok();
}

}  // namespace

Result<Tensor> apply(UnaryOp op, TensorView x) {
  BN_ASSIGN_OR_RETURN(const DType type, type_of(op, x.dtype()));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(type, x.shape()));
  BN_RETURN_IF_ERROR(apply_as(op, type, x, out.mutable_view()));
  return out;
}

Status apply(UnaryOp op, TensorView x, MutableTensorView out) {
  BN_ASSIGN_OR_RETURN(const DType type, type_of(op, x.dtype()));
  return apply_as(op, type, x, out);
}

}  // namespace bitnet
