#include "tensor/linalg/matrices.h"

#include <Eigen/SVD>

#include <algorithm>
#include <limits>

namespace bitnet {
namespace {

using Svd = Eigen::BDCSVD<Eigen::MatrixXd>;
constexpr unsigned kThin = Eigen::ComputeThinU | Eigen::ComputeThinV;

// value(singular values in descending order) of each matrix.
template <class Value>
Result<ResultStack> of_singular_values(const char* name, TensorView a, const Value& value) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of(name, a));
  BN_ASSIGN_OR_RETURN(ResultStack out, ResultStack::like(stack, {}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Svd factors(stack[i]);
    if (factors.info() != Eigen::Success) return invalid_argument("{} has no SVD that converges", stack.name_of(i));
    const Eigen::VectorXd s = factors.singularValues();
    out[i](0, 0) = value(s, double(std::max(stack.n_rows(), stack.n_cols())));
  }
  return out;
}

}  // namespace

Result<SvdFactors> svd(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of("svd", a));
  const int64_t m = stack.n_rows(), n = stack.n_cols(), k = std::min(m, n);
  BN_ASSIGN_OR_RETURN(ResultStack u, ResultStack::like(stack, {m, k}));
  BN_ASSIGN_OR_RETURN(ResultStack s, ResultStack::like(stack, {k}));
  BN_ASSIGN_OR_RETURN(ResultStack v, ResultStack::like(stack, {n, k}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Svd factors(stack[i], kThin);
    if (factors.info() != Eigen::Success) return invalid_argument("{} has no SVD that converges", stack.name_of(i));
    u[i] = factors.matrixU();
    s[i] = factors.singularValues();
    v[i] = factors.matrixV();
  }
  SvdFactors out;
  BN_ASSIGN_OR_RETURN(out.u, std::move(u).take());
  BN_ASSIGN_OR_RETURN(out.s, std::move(s).take());
  BN_ASSIGN_OR_RETURN(out.v, std::move(v).take());
  return out;
}

Result<Tensor> singular_values(TensorView a) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of("singular_values", a));
  BN_ASSIGN_OR_RETURN(ResultStack s, ResultStack::like(stack, {std::min(stack.n_rows(), stack.n_cols())}));
  for (int64_t i = 0; i < stack.size(); ++i) {
    const Svd factors(stack[i]);
    if (factors.info() != Eigen::Success) return invalid_argument("{} has no SVD that converges", stack.name_of(i));
    s[i] = factors.singularValues();
  }
  return std::move(s).take();
}

Result<Tensor> condition_number(TensorView a) {
  BN_ASSIGN_OR_RETURN(ResultStack out, of_singular_values("condition_number", a, [](const auto& s, double) {
                        const double least = s[s.size() - 1];
                        return least > 0 ? s[0] / least : std::numeric_limits<double>::infinity();
                      }));
  return std::move(out).take();
}

Result<Tensor> matrix_rank(TensorView a) {
  BN_ASSIGN_OR_RETURN(ResultStack out, of_singular_values("matrix_rank", a, [](const auto& s, double longer_side) {
                        const double limit = s[0] * longer_side * std::numeric_limits<double>::epsilon();
                        return double((s.array() > limit).count());
                      }));
  return out.take_as(DType::kI64);
}

Result<Tensor> least_squares(TensorView a, TensorView b) {
  BN_ASSIGN_OR_RETURN(const MatrixStack stack, MatrixStack::of("least_squares", a));
  BN_ASSIGN_OR_RETURN(const RightHandSides sides, RightHandSides::of("least_squares", stack, b));
  BN_ASSIGN_OR_RETURN(ResultStack x, ResultStack::like(stack, sides.solution_shape(stack)));
  for (int64_t i = 0; i < stack.size(); ++i) {
    Svd factors(stack[i], kThin);
    if (factors.info() != Eigen::Success) return invalid_argument("{} has no SVD that converges", stack.name_of(i));
    factors.setThreshold(double(std::max(stack.n_rows(), stack.n_cols())) * std::numeric_limits<double>::epsilon());
    x[i] = factors.solve(sides.stack[i]);
  }
  return std::move(x).take();
}

}  // namespace bitnet
