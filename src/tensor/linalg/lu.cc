#include "tensor/linalg/matrices.h"

#include <Eigen/LU>

namespace bitnet {
namespace {

using Lu = Eigen::PartialPivLU<Eigen::MatrixXd>;

Error singular(const MatrixStack& stack, int64_t i) { return invalid_argument("{} is singular", stack.name_of(i)); }

bool has_zero_pivot(const Lu& factors) { return (factors.matrixLU().diagonal().array() == 0.0).any(); }

}  // namespace

Result<LuFactors> lu(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("lu", a));
  const int64_t n = stack.n_rows();
  BN_ASSIGN_OR_RETURN(ResultStack rows, ResultStack::like(stack, {n}));
  BN_ASSIGN_OR_RETURN(ResultStack l, ResultStack::like(stack, {n, n}));
  BN_ASSIGN_OR_RETURN(ResultStack u, ResultStack::like(stack, {n, n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Lu factors(stack[i]);
    rows[i] = factors.permutationP() * row_numbers(n);
    l[i] = factors.matrixLU().triangularView<Eigen::UnitLower>();
    u[i] = factors.matrixLU().triangularView<Eigen::Upper>();
  }
  LuFactors out;
  BN_ASSIGN_OR_RETURN(out.rows, rows.take_as(DType::kI64));
  BN_ASSIGN_OR_RETURN(out.l, std::move(l).take());
  BN_ASSIGN_OR_RETURN(out.u, std::move(u).take());
  return out;
}

Result<Tensor> solve(TensorView a, TensorView b) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("solve", a));
  BN_ASSIGN_OR_RETURN(const RightHandSides sides, RightHandSides::of("solve", stack, b));
  BN_ASSIGN_OR_RETURN(ResultStack x, ResultStack::like(stack, sides.solution_shape(stack)));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Lu factors(stack[i]);
    if (has_zero_pivot(factors)) return singular(stack, i);
    x[i] = factors.solve(sides.stack[i]);
  }
  return std::move(x).take();
}

Result<Tensor> inverse(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("inverse", a));
  const int64_t n = stack.n_rows();
  BN_ASSIGN_OR_RETURN(ResultStack out, ResultStack::like(stack, {n, n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Lu factors(stack[i]);
    if (has_zero_pivot(factors)) return singular(stack, i);
    out[i] = factors.inverse();
  }
  return std::move(out).take();
}

Result<Tensor> determinant(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("determinant", a));
  BN_ASSIGN_OR_RETURN(ResultStack out, ResultStack::like(stack, {}));
  for (int64_t i = 0; i < stack.size(); ++i) out[i](0, 0) = Lu(stack[i]).determinant();
  return std::move(out).take();
}

}  // namespace bitnet
