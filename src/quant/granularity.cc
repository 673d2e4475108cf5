#include "quant/granularity.h"

#include "tensor/reduce.h"

namespace bitnet {

Result<TensorView> finite_matrix(std::span<const float> values, int64_t n_rows, int64_t n_cols) {
  const auto matrix = TensorView::of(values, {n_rows, n_cols});
  if (!matrix || values.empty())
    return invalid_argument("{} values for a matrix of [{}, {}]", values.size(), n_rows, n_cols);
  BN_ASSIGN_OR_RETURN(const std::optional<int64_t> bad, find_nonfinite(*matrix));
  if (bad) {
    return invalid_input("row {}, column {}: {} cannot be quantised", *bad / n_cols, *bad % n_cols,
                         values[size_t(*bad)]);
  }
  return *matrix;
}

Result<TensorView> grouped(const TensorView& matrix, Granularity granularity, int64_t group_cols) {
  const int64_t n_cols = matrix.shape()[1];
  switch (granularity) {
    case Granularity::kTensor: return matrix.reshape({1, -1});
    case Granularity::kRow: return matrix;
    case Granularity::kColumn: return matrix.transpose();
    case Granularity::kGroup: break;
  }
  if (group_cols < 1 || n_cols % group_cols != 0) {
    return invalid_argument("groups of {} columns do not divide rows of {}", group_cols, n_cols);
  }
  return matrix.reshape({-1, group_cols});
}

}  // namespace bitnet
