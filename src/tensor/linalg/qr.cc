#include "tensor/linalg/matrices.h"

#include <Eigen/QR>

#include <algorithm>

namespace bitnet {

Result<QrFactors> qr(TensorView a, QrForm form) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of("qr", a));
  const int64_t m = stack.n_rows(), n = stack.n_cols();
  const int64_t k = form == QrForm::kComplete ? m : std::min(m, n);
  BN_ASSIGN_OR_RETURN(ResultStack q, ResultStack::like(stack, {m, k}));
  BN_ASSIGN_OR_RETURN(ResultStack r, ResultStack::like(stack, {k, n}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Eigen::HouseholderQR<Eigen::MatrixXd> factors(stack[i]);
    q[i] = factors.householderQ() * Eigen::MatrixXd::Identity(m, k);
    const Eigen::MatrixXd upper = factors.matrixQR().triangularView<Eigen::Upper>();
    r[i] = upper.topRows(k);
  }
  QrFactors out;
  BN_ASSIGN_OR_RETURN(out.q, std::move(q).take());
  BN_ASSIGN_OR_RETURN(out.r, std::move(r).take());
  return out;
}

}  // namespace bitnet
