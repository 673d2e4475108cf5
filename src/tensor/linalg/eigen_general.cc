#include "tensor/linalg/matrices.h"

#include <Eigen/Eigenvalues>

namespace bitnet {

Result<GeneralEigen> eigen_general(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of_square("eigen_general", a));
  const int64_t n = stack.n_rows();
  BN_ASSIGN_OR_RETURN(ResultStack values_real, ResultStack::like(stack, {n}));
  BN_ASSIGN_OR_RETURN(ResultStack values_imaginary, ResultStack::like(stack, {n}));
  BN_ASSIGN_OR_RETURN(ResultStack vectors_real, ResultStack::like(stack, {n, n}));
  BN_ASSIGN_OR_RETURN(ResultStack vectors_imaginary, ResultStack::like(stack, {n, n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Eigen::EigenSolver<Eigen::MatrixXd> solver(stack[i]);
    if (solver.info() != Eigen::Success) {
      return invalid_argument("{}: its eigenvalues do not converge", stack.name_of(i));
    }
    const Eigen::MatrixXcd vectors = solver.eigenvectors();
    values_real[i] = solver.eigenvalues().real();
    values_imaginary[i] = solver.eigenvalues().imag();
    vectors_real[i] = vectors.real();
    vectors_imaginary[i] = vectors.imag();
  }
  GeneralEigen out;
  BN_ASSIGN_OR_RETURN(out.values_real, std::move(values_real).take());
  BN_ASSIGN_OR_RETURN(out.values_imaginary, std::move(values_imaginary).take());
  BN_ASSIGN_OR_RETURN(out.vectors_real, std::move(vectors_real).take());
  BN_ASSIGN_OR_RETURN(out.vectors_imaginary, std::move(vectors_imaginary).take());
  return out;
}

}  // namespace bitnet
