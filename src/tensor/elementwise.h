#pragma once

#include "tensor/tensor.h"

#include <cstdint>

// Operations value by value. Shapes of two operands repeat to a common one by NumPy's rule; so do types:
//
//   * a float with an integer or BOOL gives the float's type (NumPy: F64 for I32 with F32),
//   * two floats the wider one, F16 with BF16 F32,
//   * two integers the smallest that holds both, U64 with a signed one F64; BOOL with an integer that integer,
//   * a plain number takes the other operand's type where that has it exactly, else I64, else F64.
//
// Division, and functions whose values are no integers, give F64 for integers. F16 and BF16 are computed in float and
// rounded once; an integer beside them is not rounded before. Integers wrap; dividing one by zero gives 0. NaN goes
// through everything, minimum and maximum included.
namespace bitnet {

Result<DType> promote(DType a, DType b);

enum class BinaryOp : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,  // towards minus infinity
  kRemainder,    // with the sign of the divisor, as Python's %
  kPower,        // of integers: a negative exponent is refused
  kMinimum,
  kMaximum,
};
Result<Tensor> apply(BinaryOp op, TensorView a, TensorView b);
Result<Tensor> apply(BinaryOp op, TensorView a, double b);
// Into memory that is there, of the result's shape; converted to its type. out may be a or b.
Status apply(BinaryOp op, TensorView a, TensorView b, MutableTensorView out);

enum class CompareOp : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
// BOOL. As C++ compares floats: nothing is equal to, below or above NaN. Types are promoted before.
Result<Tensor> compare(CompareOp op, TensorView a, TensorView b);
Result<Tensor> compare(CompareOp op, TensorView a, double b);

enum class UnaryOp : uint8_t {
  kNegative,
  kAbsolute,
  kSign,
  kSquare,
  kFloor,
  kCeil,
  kRound,  // half to even
  kTruncate,
  // F64 for integers:
  kSqrt,
  kReciprocal,
  kExp,
  kExpm1,
  kLog,
  kLog2,
  kLog1p,
  kSin,
  kCos,
  kTan,
  kSinh,
  kCosh,
  kTanh,
  kErf,
};
Result<Tensor> apply(UnaryOp op, TensorView x);
Status apply(UnaryOp op, TensorView x, MutableTensorView out);

// BOOL.
Result<Tensor> is_nan(TensorView x);
Result<Tensor> is_finite(TensorView x);
Result<Tensor> logical_not(TensorView x);
Result<Tensor> logical_and(TensorView a, TensorView b);
Result<Tensor> logical_or(TensorView a, TensorView b);

// a where `condition` is not zero, else b.
Result<Tensor> where(TensorView condition, TensorView a, TensorView b);
// At least `low` and at most `high`.
Result<Tensor> clip(TensorView x, double low, double high);

// By name: add(a, b), multiply(a, 2.0), less(a, b), exp(x).
inline Result<Tensor> add(TensorView a, TensorView b) { return apply(BinaryOp::kAdd, a, b); }
inline Result<Tensor> add(TensorView a, double b) { return apply(BinaryOp::kAdd, a, b); }
inline Result<Tensor> subtract(TensorView a, TensorView b) { return apply(BinaryOp::kSubtract, a, b); }
inline Result<Tensor> subtract(TensorView a, double b) { return apply(BinaryOp::kSubtract, a, b); }
inline Result<Tensor> multiply(TensorView a, TensorView b) { return apply(BinaryOp::kMultiply, a, b); }
inline Result<Tensor> multiply(TensorView a, double b) { return apply(BinaryOp::kMultiply, a, b); }
inline Result<Tensor> divide(TensorView a, TensorView b) { return apply(BinaryOp::kDivide, a, b); }
inline Result<Tensor> divide(TensorView a, double b) { return apply(BinaryOp::kDivide, a, b); }
inline Result<Tensor> power(TensorView a, TensorView b) { return apply(BinaryOp::kPower, a, b); }
inline Result<Tensor> power(TensorView a, double b) { return apply(BinaryOp::kPower, a, b); }
inline Result<Tensor> minimum(TensorView a, TensorView b) { return apply(BinaryOp::kMinimum, a, b); }
inline Result<Tensor> maximum(TensorView a, TensorView b) { return apply(BinaryOp::kMaximum, a, b); }
inline Result<Tensor> equal(TensorView a, TensorView b) { return compare(CompareOp::kEqual, a, b); }
inline Result<Tensor> less(TensorView a, TensorView b) { return compare(CompareOp::kLess, a, b); }
inline Result<Tensor> less(TensorView a, double b) { return compare(CompareOp::kLess, a, b); }
inline Result<Tensor> greater(TensorView a, TensorView b) { return compare(CompareOp::kGreater, a, b); }
inline Result<Tensor> greater(TensorView a, double b) { return compare(CompareOp::kGreater, a, b); }
inline Result<Tensor> negative(TensorView x) { return apply(UnaryOp::kNegative, x); }
inline Result<Tensor> absolute(TensorView x) { return apply(UnaryOp::kAbsolute, x); }
inline Result<Tensor> square(TensorView x) { return apply(UnaryOp::kSquare, x); }
inline Result<Tensor> sqrt(TensorView x) { return apply(UnaryOp::kSqrt, x); }
inline Result<Tensor> exp(TensorView x) { return apply(UnaryOp::kExp, x); }
inline Result<Tensor> log(TensorView x) { return apply(UnaryOp::kLog, x); }

}  // namespace bitnet
