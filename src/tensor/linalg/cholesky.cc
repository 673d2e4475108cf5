#include "tensor/linalg/matrices.h"

#include <Eigen/Cholesky>

namespace bitnet {

Result<Tensor> cholesky(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("cholesky", a));
  const int64_t n = stack.n_rows();
  BN_ASSIGN_OR_RETURN(ResultStack l, ResultStack::like(stack, {n, n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Eigen::LLT<Eigen::MatrixXd> factors(stack[i]);
    if (factors.info() != Eigen::Success) return invalid_argument("{} is not positive definite", stack.name_of(i));
    l[i] = factors.matrixL();
  }
  return std::move(l).take();
}

Result<LdltFactors> ldlt(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("ldlt", a));
  const int64_t n = stack.n_rows();
  BN_ASSIGN_OR_RETURN(ResultStack rows, ResultStack::like(stack, {n}));
  BN_ASSIGN_OR_RETURN(ResultStack l, ResultStack::like(stack, {n, n}));
  BN_ASSIGN_OR_RETURN(ResultStack d, ResultStack::like(stack, {n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Eigen::LDLT<Eigen::MatrixXd> factors(stack[i]);
    if (factors.info() != Eigen::Success) {
      return invalid_argument("{} is neither positive nor negative semidefinite", stack.name_of(i));
    }
    rows[i] = factors.transpositionsP() * row_numbers(n);
    l[i] = factors.matrixL();
    d[i] = factors.vectorD();
  }
  LdltFactors out;
  BN_ASSIGN_OR_RETURN(out.rows, rows.take_as(DType::kI64));
  BN_ASSIGN_OR_RETURN(out.l, std::move(l).take());
  BN_ASSIGN_OR_RETURN(out.d, std::move(d).take());
  return out;
}

}  // namespace bitnet
