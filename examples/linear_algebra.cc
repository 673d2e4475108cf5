// linear_algebra: a polynomial through noisy points by least squares, how well it is determined, and why.
#include "tensor/elementwise.h"
#include "tensor/linalg/linalg.h"
#include "tensor/reduce.h"

#include <cmath>
#include <cstdio>
#include <vector>

namespace {

bitnet::Status run() {
  using namespace bitnet;
  // y = 1 - 2 x + 3 x^3 at 50 places, with noise.
  constexpr int64_t kPoints = 50, kTerms = 4;
  BN_ASSIGN_OR_RETURN(const Tensor x, Tensor::arange(DType::kF64, 0, 1, 1.0 / kPoints));
  BN_ASSIGN_OR_RETURN(const TensorView column, x.view().unsqueeze(1));
  BN_ASSIGN_OR_RETURN(const Tensor exponents, Tensor::arange(DType::kF64, 0, kTerms));
  BN_ASSIGN_OR_RETURN(const Tensor powers, power(column, exponents));  // [50, 1] with [4]: Vandermonde's matrix
  BN_ASSIGN_OR_RETURN(const Tensor truth, Tensor::from<double>({1, -2, 0, 3}, {kTerms}));
  BN_ASSIGN_OR_RETURN(const Tensor terms, multiply(powers, truth));
  BN_ASSIGN_OR_RETURN(const Tensor exact, sum(terms, {.axes = {1}}));
  BN_ASSIGN_OR_RETURN(const Tensor noise, Tensor::normal(DType::kF64, {kPoints}, /*seed=*/3));
  BN_ASSIGN_OR_RETURN(const Tensor small, multiply(noise, 0.01));
  BN_ASSIGN_OR_RETURN(const Tensor y, add(exact, small));

  BN_ASSIGN_OR_RETURN(const Tensor fit, least_squares(powers, y));
  BN_ASSIGN_OR_RETURN(const Tensor condition, condition_number(powers));
  BN_ASSIGN_OR_RETURN(const SvdFactors factors, svd(powers));
  std::printf("coefficients %s of %s\n", to_text(fit).c_str(), to_text(truth).c_str());
  std::printf("condition %s, singular values %s\n", to_text(condition).c_str(), to_text(factors.s).c_str());

  // A matrix without an inverse is an error that says so.
  BN_ASSIGN_OR_RETURN(const Tensor singular, Tensor::full(DType::kF64, {3, 3}, 1));
  const auto inverted = inverse(singular);
  std::printf("%s\n", inverted ? "an inverse?" : inverted.error().message.c_str());

  BN_ASSIGN_OR_RETURN(const double off, relative_error(truth, fit));
  if (inverted || off > 0.1) return make_error(ErrorCode::kInternal, "the fit is off by {:.3g}", off);
  return ok();
}

}  // namespace

int main() {
  const bitnet::Status status = run();
  if (!status) std::fprintf(stderr, "linear_algebra: %s\n", status.error().message.c_str());
  return status ? 0 : int(status.error().code);
}
