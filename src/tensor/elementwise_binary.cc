#include "tensor/elementwise_support.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace bitnet {
namespace {

template <class C>
constexpr bool kFloats = std::is_floating_point_v<C>;
// Integers wrap, which signed ones may not do in C++.
template <class C>
using Wrapping = std::conditional_t<kFloats<C>, C, uint64_t>;

template <class C>
C remainder_of(C a, C b) {
  if constexpr (kFloats<C>) {
    const C r = std::fmod(a, b);
    if (b == 0) return r;
    if (r == 0) return std::copysign(C(0), b);
    return (b < 0) != (r < 0) ? r + b : r;
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<C>) {
      if (b == -1) return 0;  // the least integer has no positive twin
      const C r = a % b;
      return r != 0 && (b < 0) != (r < 0) ? r + b : r;
    }
    return a % b;
  }
}

template <class C>
C floor_divide(C a, C b) {
  if constexpr (kFloats<C>) {
    if (b == 0) return a / b;
    // From the remainder, as Python does: the quotient itself may have been rounded up to the next integer.
    const C r = std::fmod(a, b);
    C quotient = (a - r) / b;
    if (r != 0 && (b < 0) != (r < 0)) quotient -= 1;
    if (quotient == 0) return std::copysign(C(0), a / b);
    const C down = std::floor(quotient);
    return quotient - down > C(0.5) ? down + 1 : down;
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<C>) {
      if (b == -1) return C(0 - uint64_t(a));
      const C quotient = a / b;
      return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
    }
    return a / b;
  }
}

template <class C>
C power_of(C a, C b) {
  if constexpr (kFloats<C>) {
    return std::pow(a, b);
  } else {
    uint64_t base = uint64_t(a), result = 1;
    for (uint64_t exponent = uint64_t(b); exponent > 0; exponent >>= 1, base *= base) {
      if ((exponent & 1) != 0) result *= base;
    }
    return C(result);
  }
}

template <BinaryOp kOp, class C>
C compute(C a, C b) {
  using W = Wrapping<C>;
  if constexpr (kOp == BinaryOp::kAdd) return C(W(a) + W(b));
  if constexpr (kOp == BinaryOp::kSubtract) return C(W(a) - W(b));
  if constexpr (kOp == BinaryOp::kMultiply) return C(W(a) * W(b));
  if constexpr (kOp == BinaryOp::kDivide) {
    if constexpr (kFloats<C>) return a / b;
    return floor_divide(a, b);  // never asked for: integers are divided as F64
  }
  if constexpr (kOp == BinaryOp::kFloorDivide) return floor_divide(a, b);
  if constexpr (kOp == BinaryOp::kRemainder) return remainder_of(a, b);
  if constexpr (kOp == BinaryOp::kPower) return power_of(a, b);
  if constexpr (kOp == BinaryOp::kMinimum) return a < b || a != a ? a : b;
  if constexpr (kOp == BinaryOp::kMaximum) return a > b || a != a ? a : b;
}

template <class C>
using BinaryBlock = void (*)(const C* a, const C* b, C* out, int64_t n);

template <BinaryOp kOp, class C>
void binary_block(const C* BN_RESTRICT a, const C* BN_RESTRICT b, C* BN_RESTRICT out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = compute<kOp>(a[i], b[i]);
}

template <class C>
BinaryBlock<C> block_of(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd: return binary_block<BinaryOp::kAdd, C>;
    case BinaryOp::kSubtract: return binary_block<BinaryOp::kSubtract, C>;
    case BinaryOp::kMultiply: return binary_block<BinaryOp::kMultiply, C>;
    case BinaryOp::kDivide: return binary_block<BinaryOp::kDivide, C>;
    case BinaryOp::kFloorDivide: return binary_block<BinaryOp::kFloorDivide, C>;
    case BinaryOp::kRemainder: return binary_block<BinaryOp::kRemainder, C>;
    case BinaryOp::kPower: return binary_block<BinaryOp::kPower, C>;
    case BinaryOp::kMinimum: return binary_block<BinaryOp::kMinimum, C>;
    case BinaryOp::kMaximum: break;
  }
  return binary_block<BinaryOp::kMaximum, C>;
}

// What the operation is computed in and its result has.
Result<DType> type_of(BinaryOp op, DType a, DType b) {
  BN_ASSIGN_OR_RETURN(const DType type, promote(a, b));
  if (op == BinaryOp::kDivide) return is_float(type) ? type : DType::kF64;
  const bool logical =
      op == BinaryOp::kAdd || op == BinaryOp::kMultiply || op == BinaryOp::kMinimum || op == BinaryOp::kMaximum;
  if (type == DType::kBool && !logical) {
    return unsupported("BOOL values can be added, multiplied and compared only: cast them to an integer type");
  }
  return type;
}

Status check_exponents(const TensorView& b) {
  ElementReader<int64_t> reader(b);
  int64_t block[kBlockValues];
  for (int64_t left = b.n_values(); left > 0;) {
    const int64_t n = std::min(left, kBlockValues);
    const int64_t* const values = reader.read(n, block);
    const int64_t* const bad = std::find_if(values, values + n, [](int64_t v) { return v < 0; });
    if (bad != values + n) return invalid_argument("an integer to the power {}: cast it to a float type", *bad);
    left -= n;
  }
  return ok();
}

Status apply_as(BinaryOp op, DType type, const TensorView& a, const TensorView& b, const MutableTensorView& out) {
  Operands<2> operands{{a, b}};
  BN_RETURN_IF_ERROR(operands.prepare(out));
  if (op == BinaryOp::kPower && is_integer(type) && type != DType::kU64) BN_RETURN_IF_ERROR(check_exponents(b));
  visit_computed(type, [&](auto computed) {
    using C = decltype(computed);
    for_blocks<C>(operands.views[0], operands.views[1], out, operands.staged, block_of<C>(op));
  });
  return ok();
}

bool is_signed(DType type) { return type >= DType::kI8 && type <= DType::kI64; }

}  // namespace

Result<DType> promote(DType a, DType b) {
  BN_RETURN_IF_ERROR(check_elements(a));
  BN_RETURN_IF_ERROR(check_elements(b));
  if (a == b || b == DType::kBool) return a;
  if (a == DType::kBool) return b;
  if (is_float(a) != is_float(b)) return is_float(a) ? a : b;
  if (is_float(a)) return a == DType::kF64 || b == DType::kF64 ? DType::kF64 : DType::kF32;
  const int64_t a_bytes = dtype_info(a).block_bytes, b_bytes = dtype_info(b).block_bytes;
  if (is_signed(a) == is_signed(b)) return a_bytes >= b_bytes ? a : b;
  const DType with_sign = is_signed(a) ? a : b;
  const int64_t unsigned_bytes = is_signed(a) ? b_bytes : a_bytes;
  if (dtype_info(with_sign).block_bytes > unsigned_bytes) return with_sign;
  switch (unsigned_bytes) {
    case 1: return DType::kI16;
    case 2: return DType::kI32;
    case 4: return DType::kI64;
    default: return DType::kF64;
  }
}

Result<Tensor> number_beside(double value, DType other) {
  BN_RETURN_IF_ERROR(check_elements(other));
  if (is_float(other)) return Tensor::full(other, {}, value);
  for (const DType type : {other, DType::kI64}) {
    BN_ASSIGN_OR_RETURN(Tensor number, Tensor::full(type, {}, value));
    BN_ASSIGN_OR_RETURN(const double kept, item(number));
    if (kept == value && type != DType::kBool) return number;
  }
  return Tensor::full(DType::kF64, {}, value);
}

Result<Tensor> apply(BinaryOp op, TensorView a, TensorView b) {
  BN_ASSIGN_OR_RETURN(const DType type, type_of(op, a.dtype(), b.dtype()));
  BN_ASSIGN_OR_RETURN(Shape shape, broadcast_shapes(a.shape(), b.shape()));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(type, std::move(shape)));
  BN_RETURN_IF_ERROR(apply_as(op, type, a, b, out.mutable_view()));
  return out;
}

Result<Tensor> apply(BinaryOp op, TensorView a, double b) {
  BN_ASSIGN_OR_RETURN(const Tensor number, number_beside(b, a.dtype()));
  return apply(op, a, number.view());
}

Status apply(BinaryOp op, TensorView a, TensorView b, MutableTensorView out) {
  BN_ASSIGN_OR_RETURN(const DType type, type_of(op, a.dtype(), b.dtype()));
  return apply_as(op, type, a, b, out);
}

}  // namespace bitnet
