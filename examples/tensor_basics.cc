// tensor_basics: standardises the columns of a table and scores them, with views, broadcasting, reductions and a
// product.
#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "tensor/activation.h"
#include "tensor/elementwise.h"
#include "tensor/reduce.h"

#include <cmath>
#include <cstdio>

namespace {

bitnet::Status run() {
  using namespace bitnet;
  // 1000 rows of 4 columns with means and spreads of their own.
  BN_ASSIGN_OR_RETURN(const Tensor noise, Tensor::normal(DType::kF32, {1000, 4}, /*seed=*/7));
  BN_ASSIGN_OR_RETURN(const Tensor spread, Tensor::from<float>({1, 2, 4, 8}, {4}));
  BN_ASSIGN_OR_RETURN(Tensor table, multiply(noise, spread));
  BN_ASSIGN_OR_RETURN(table, add(table, 10.0));

  // Statistics of each column keep their axis, so that they repeat along the rows.
  BN_ASSIGN_OR_RETURN(const Tensor centre, mean(table, {.axes = {0}, .keep_dims = true}));
  BN_ASSIGN_OR_RETURN(const Tensor scale, standard_deviation(table, {.axes = {0}, .keep_dims = true}));
  BN_ASSIGN_OR_RETURN(Tensor standard, subtract(table, centre));
  BN_RETURN_IF_ERROR(apply(BinaryOp::kDivide, standard, scale, standard.mutable_view()));  // in place
  std::printf("means %s, deviations %s\n", to_text(centre).c_str(), to_text(scale).c_str());

  // Every tenth row, from the last one: a view, nothing is copied.
  BN_ASSIGN_OR_RETURN(const TensorView some, standard.view().slice(0, {{}, {}, -10}));
  BN_ASSIGN_OR_RETURN(const TensorView weights, noise.view().slice(0, {0, 4}));
  ThreadPool pool(available_cpus());
  BN_ASSIGN_OR_RETURN(const Tensor scores, matmul(pool, some, weights));
  BN_ASSIGN_OR_RETURN(const Tensor shares, softmax(scores));
  BN_ASSIGN_OR_RETURN(const Tensor best, argmax(shares, {.axes = {1}}));
  std::printf("scores %s, best of each %s\n", shape_string(scores.shape()).c_str(), to_text(best).c_str());

  BN_ASSIGN_OR_RETURN(const Tensor total, sum(shares));
  BN_ASSIGN_OR_RETURN(const double rows, item(total));
  if (std::fabs(rows - 100) > 1e-3) return make_error(ErrorCode::kInternal, "100 rows of shares add up to {}", rows);
  return ok();
}

}  // namespace

int main() {
  const bitnet::Status status = run();
  if (!status) std::fprintf(stderr, "tensor_basics: %s\n", status.error().message.c_str());
  return status ? 0 : int(status.error().code);
}
