#include "tensor/linalg/matrices.h"

#include "tensor/reduce.h"

#include <utility>

namespace bitnet {

Result<MatrixStack> MatrixStack::of(const char* name, TensorView a) {
  if (a.rank() < 2) return invalid_argument("{}: a tensor of shape {} is no matrix", name, shape_string(a.shape()));
  MatrixStack out;
  out.name_ = name;
  out.shape_ = a.shape();
  out.n_cols_ = a.shape().back();
  out.n_rows_ = a.shape()[a.shape().size() - 2];
  if (out.n_rows_ == 0 || out.n_cols_ == 0) {
    return invalid_argument("{}: a matrix of shape {} has no rows or no columns", name, shape_string(a.shape()));
  }
  BN_ASSIGN_OR_RETURN(const std::optional<int64_t> bad, find_nonfinite(a));
  if (bad) {
    return invalid_argument("{}: a matrix of shape {} is not finite at row {}, column {}", name,
                            shape_string(a.shape()), *bad / out.n_cols_ % out.n_rows_, *bad % out.n_cols_);
  }
  BN_ASSIGN_OR_RETURN(out.values_, cast(a, DType::kF64));
  out.dtype_ = is_float(a.dtype()) && a.dtype() != DType::kF64 ? DType::kF32 : DType::kF64;
  out.stack_shape_.assign(a.shape().begin(), a.shape().end() - 2);
  for (const int64_t n : out.stack_shape_) out.size_ *= n;
  return out;
}

Result<MatrixStack> MatrixStack::of_square(const char* name, TensorView a) {
  BN_ASSIGN_OR_RETURN(MatrixStack out, of(name, a));
  if (out.n_rows_ == out.n_cols_) return out;
  return invalid_argument("{}: a matrix of shape {} is not square", name, shape_string(a.shape()));
}

std::string MatrixStack::name_of(int64_t i) const {
  if (stack_shape_.empty()) return fmt::format("{}: the matrix {}", name_, shape_string(shape_));
  return fmt::format("{}: matrix {} of {}", name_, i, shape_string(shape_));
}

Result<ResultStack> ResultStack::like(const MatrixStack& stack, Shape shape_of_one) {
  ResultStack out;
  out.dtype_ = stack.dtype();
  if (!shape_of_one.empty()) out.n_rows_ = shape_of_one[0];
  if (shape_of_one.size() > 1) out.n_cols_ = shape_of_one[1];
  Shape shape = stack.stack_shape();
  shape.insert(shape.end(), shape_of_one.begin(), shape_of_one.end());
  BN_ASSIGN_OR_RETURN(out.values_, Tensor::zeros(DType::kF64, std::move(shape)));
  return out;
}

Result<RightHandSides> RightHandSides::of(const char* name, const MatrixStack& a, TensorView b) {
  const Shape given = b.shape();
  const bool vector = b.rank() == 1;
  if (vector) {
    BN_ASSIGN_OR_RETURN(b, b.unsqueeze(-1));
  }
  BN_ASSIGN_OR_RETURN(MatrixStack stack, MatrixStack::of(name, b));
  if (stack.n_rows() != a.n_rows() || stack.stack_shape() != a.stack_shape()) {
    Shape matrix = a.stack_shape();
    matrix.insert(matrix.end(), {a.n_rows(), a.n_cols()});
    return invalid_argument("{}: right-hand sides of shape {} for a matrix of shape {}", name, shape_string(given),
                            shape_string(matrix));
  }
  return RightHandSides{std::move(stack), vector};
}

Shape RightHandSides::solution_shape(const MatrixStack& a) const {
  return vector ? Shape{a.n_cols()} : Shape{a.n_cols(), stack.n_cols()};
}

}  // namespace bitnet
