#include "tensor/linalg/matrices.h"

#include <Eigen/Eigenvalues>

namespace bitnet {

Result<SymmetricEigen> eigen_symmetric(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("eigen_symmetric", a));
  const int64_t n = stack.n_rows();
  BN_ASSIGN_OR_RETURN(ResultStack values, ResultStack::like(stack, {n}));
  BN_ASSIGN_OR_RETURN(ResultStack vectors, ResultStack::like(stack, {n, n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(stack[i]);
    if (solver.info() != Eigen::Success) {
      return invalid_argument("{}: its eigenvalues do not converge", stack.name_of(i));
    }
    values[i] = solver.eigenvalues();
    vectors[i] = solver.eigenvectors();
  }
  SymmetricEigen out;
  BN_ASSIGN_OR_RETURN(out.values, std::move(values).take());
  BN_ASSIGN_OR_RETURN(out.vectors, std::move(vectors).take());
  return out;
}

}  // namespace bitnet
