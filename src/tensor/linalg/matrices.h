#pragma once

#include "tensor/element_stream.h"
#include "tensor/linalg/linalg.h"

#include <Eigen/Core>

#include <cstdint>
#include <string>

// Between stacks of matrices in views and Eigen's. For the .cc files of this folder only.
namespace bitnet {

using RowMajorMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A stack of matrices [..., m, n], all finite, computed in double.
class MatrixStack {
 public:
  // `name` is for messages.
  static Result<MatrixStack> of(const char* name, TensorView a);
  static Result<MatrixStack> of_square(const char* name, TensorView a);

  int64_t n_rows() const { return n_rows_; }
  int64_t n_cols() const { return n_cols_; }
  int64_t size() const { return size_; }
  const Shape& stack_shape() const { return stack_shape_; }
  DType dtype() const { return dtype_; }  // of results
  Eigen::Map<const RowMajorMatrix> operator[](int64_t i) const {
    return {reinterpret_cast<const double*>(values_.bytes().data()) + i * n_rows_ * n_cols_, n_rows_, n_cols_};
  }
  // "solve: matrix 2 of [3, 4, 4]", for messages.
  std::string name_of(int64_t i) const;

 private:
  std::string name_;
  Tensor values_;  // F64, contiguous
  DType dtype_ = DType::kF64;
  Shape shape_, stack_shape_;
  int64_t n_rows_ = 0, n_cols_ = 0, size_ = 1;
};

// One result of each matrix in a stack: [..., rows, cols], [..., rows] or [...].
class ResultStack {
 public:
  static Result<ResultStack> like(const MatrixStack& stack, Shape shape_of_one);

  Eigen::Map<RowMajorMatrix> operator[](int64_t i) {
    return {reinterpret_cast<double*>(values_.bytes().data()) + i * n_rows_ * n_cols_, n_rows_, n_cols_};
  }
  Result<Tensor> take() && { return take_as(dtype_); }
  Result<Tensor> take_as(DType dtype) {
    if (dtype == DType::kF64) return std::move(values_);
    return cast(values_, dtype);
  }

 private:
  Tensor values_;
  DType dtype_ = DType::kF64;
  int64_t n_rows_ = 1, n_cols_ = 1;
};

// 0, 1, ... n - 1: a permutation of them tells which row comes to each place.
inline Eigen::MatrixXd row_numbers(int64_t n) {
  Eigen::MatrixXd numbers(n, 1);
  for (int64_t i = 0; i < n; ++i) numbers(i, 0) = double(i);
  return numbers;
}

// The right-hand sides of a system with each matrix of `a`: [..., n_rows, k], or [n_rows] as a column.
struct RightHandSides {
  MatrixStack stack;
  bool vector = false;

  static Result<RightHandSides> of(const char* name, const MatrixStack& a, TensorView b);
  // [n_cols of a, k], or [n_cols] for a vector.
  Shape solution_shape(const MatrixStack& a) const;
};

}  // namespace bitnet
