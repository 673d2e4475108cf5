#pragma once

#include "tensor/tensor.h"

#include <cstdint>

// Linear algebra on matrices [m, n], or stacks of them [..., m, n], one result a matrix. Any strides and element types;
// computed in double by Eigen (MPL-2) and rounded once to F32 for F32, F16 and BF16, F64 otherwise.
//
// Errors name the shape: a matrix that is not square where one is wanted, without rows or columns, or with a value that
// is not finite; a singular or not positive definite one where the function needs more. A matrix that is only nearly
// singular is none: condition_number() tells how many digits of a solution mean something.
namespace bitnet {

// a[rows] = l u: rows I64 [..., n], l unit lower triangular, u upper triangular, both [..., n, n]. Partial pivoting.
struct LuFactors {
  Tensor rows, l, u;
};
Result<LuFactors> lu(TensorView a);
// x with a x = b for b [..., n, k], or [n] for a single a. Singular where a pivot is exactly zero.
Result<Tensor> solve(TensorView a, TensorView b);
Result<Tensor> inverse(TensorView a);
Result<Tensor> determinant(TensorView a);  // [...]; 0 of a singular matrix

// a = q r with k = min(m, n): q [..., m, k] with orthonormal columns, r [..., k, n] upper triangular; kComplete:
// q [..., m, m], r [..., m, n]. Householder reflections.
enum class QrForm : uint8_t { kReduced, kComplete };
struct QrFactors {
  Tensor q, r;
};
Result<QrFactors> qr(TensorView a, QrForm form = QrForm::kReduced);

// a = l l^T of a symmetric positive definite matrix, of which the lower triangle is read.
Result<Tensor> cholesky(TensorView a);
// a[rows][:, rows] = l diag(d) l^T of a symmetric matrix, of which the lower triangle is read: l unit lower triangular.
// For positive or negative semidefinite matrices; an indefinite one may be refused.
struct LdltFactors {
  Tensor rows, l, d;  // [..., n] I64, [..., n, n], [..., n]
};
Result<LdltFactors> ldlt(TensorView a);

// a = u diag(s) v^T with k = min(m, n): u [..., m, k], s [..., k] in descending order, v [..., n, k].
struct SvdFactors {
  Tensor u, s, v;
};
Result<SvdFactors> svd(TensorView a);
Result<Tensor> singular_values(TensorView a);  // [..., k]
// The largest by the smallest singular value; infinity where that is zero. [...]
Result<Tensor> condition_number(TensorView a);
// Singular values above max(m, n) * 2^-52 times the largest, as NumPy counts. I64 [...]
Result<Tensor> matrix_rank(TensorView a);
// The x of least norm among those with the least |a x - b|: b [..., m, k] or [m]. Singular values below that limit
// count as zero.
Result<Tensor> least_squares(TensorView a, TensorView b);

// Eigenvalues [..., n] in ascending order and orthonormal eigenvectors as columns [..., n, n] of a symmetric matrix, of
// which the lower triangle is read.
struct SymmetricEigen {
  Tensor values, vectors;
};
Result<SymmetricEigen> eigen_symmetric(TensorView a);
// Of any square matrix, as real and imaginary parts; complex ones come in conjugate pairs. Vectors have length 1.
struct GeneralEigen {
  Tensor values_real, values_imaginary;    // [..., n]
  Tensor vectors_real, vectors_imaginary;  // [..., n, n], as columns
};
Result<GeneralEigen> eigen_general(TensorView a);

}  // namespace bitnet
