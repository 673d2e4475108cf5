#include "tensor/linalg/linalg.h"

#include "tensor/elementwise.h"
#include "tensor/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace bitnet {
namespace {

constexpr double kEps = 0x1p-52;

Tensor matrix_of(int64_t m, int64_t n, const std::function<double(int64_t, int64_t)>& value) {
  Tensor out = *Tensor::zeros(DType::kF64, {m, n});
  const auto values = *out.mutable_values<double>();
  for (int64_t i = 0; i < m * n; ++i) values[size_t(i)] = value(i / n, i % n);
  return out;
}
double at(const TensorView& a, int64_t i, int64_t j) { return *item(*a.select(0, i)->select(0, j)); }

// By the definition, in long double.
Tensor times(const TensorView& a, const TensorView& b) {
  return matrix_of(a.shape()[0], b.shape()[1], [&](int64_t i, int64_t j) {
    long double sum = 0;
    for (int64_t k = 0; k < a.shape()[1]; ++k) sum += static_cast<long double>(at(a, i, k)) * at(b, k, j);
    return double(sum);
  });
}
Tensor turned(const TensorView& a) { return *Tensor::copy_of(*a.transpose()); }
Tensor diagonal(const Tensor& d) {
  const auto values = *to_vector<double>(d);
  return matrix_of(int64_t(values.size()), int64_t(values.size()),
                   [&](int64_t i, int64_t j) { return i == j ? values[size_t(i)] : 0.0; });
}
Tensor rows_of(const TensorView& a, const Tensor& rows) {
  const auto from = *to_vector<int64_t>(rows);
  return matrix_of(a.shape()[0], a.shape()[1], [&](int64_t i, int64_t j) { return at(a, from[size_t(i)], j); });
}
double norm(const TensorView& a) { return std::sqrt(*item(*sum(*square(*cast(a, DType::kF64))))); }

// |a - b| in units of n eps |a|: what a backward stable algorithm keeps small whatever the condition.
double error_units(const TensorView& a, const TensorView& b) {
  return *relative_error(a, b) / (kEps * double(std::max(a.shape()[0], a.shape().back())));
}
double orthogonality_units(const TensorView& q) {
  return error_units(*Tensor::identity(DType::kF64, q.shape()[1]), times(turned(q), q));
}

Tensor hilbert(int64_t n) {
  return matrix_of(n, n, [](int64_t i, int64_t j) { return 1.0 / double(i + j + 1); });
}

struct Hard {
  const char* name;
  Tensor matrix;
};
std::vector<Hard> hard_squares() {
  std::vector<Hard> all;
  all.push_back({"hilbert 6", hilbert(6)});
  all.push_back({"hilbert 12", hilbert(12)});  // condition 1.7e16
  all.push_back(
      {"vandermonde", matrix_of(12, 12, [](int64_t i, int64_t j) { return std::pow(0.1 * double(i + 1), j); })});
  all.push_back({"graded", matrix_of(10, 10, [](int64_t i, int64_t j) {
                   return std::pow(10.0, -double(2 * i)) * std::sin(double(3 * i + 7 * j * j + 1));
                 })});
  all.push_back({"near singular", matrix_of(8, 8, [](int64_t i, int64_t j) {
                   return 1.0 + double(i) * double(j) + (i == j ? 1e-13 : 0.0);
                 })});
  all.push_back({"normal", *Tensor::normal(DType::kF64, {40, 40}, 5)});
  all.push_back({"one", *Tensor::full(DType::kF64, {1, 1}, -3)});
  return all;
}
std::vector<Hard> hard_matrices() {
  std::vector<Hard> all = hard_squares();
  all.push_back(
      {"tall vandermonde", matrix_of(30, 9, [](int64_t i, int64_t j) { return std::pow(double(i) / 30, j); })});
  all.push_back({"wide", *Tensor::normal(DType::kF64, {5, 23}, 6)});
  all.push_back({"column", *Tensor::normal(DType::kF64, {7, 1}, 7)});
  all.push_back({"row", *Tensor::normal(DType::kF64, {1, 7}, 8)});
  all.push_back({"rank one", matrix_of(6, 4, [](int64_t i, int64_t j) { return double((i + 1) * (j + 1)); })});
  all.push_back({"zeros", *Tensor::zeros(DType::kF64, {4, 6})});
  return all;
}

TEST(Linalg, LuGivesTheMatrixBack) {
  for (const auto& [name, a] : hard_squares()) {
    const auto factors = lu(a);
    ASSERT_TRUE(factors) << name;
    EXPECT_LT(error_units(rows_of(a, factors->rows), times(factors->l, factors->u)), 10) << name;
    EXPECT_LE(*item(*max(*absolute(factors->l))), 1.0) << name;  // partial pivoting
    EXPECT_EQ(at(factors->l, 0, 0), 1.0);
  }
}

TEST(Linalg, SolutionsLeaveASmallResidual) {
  for (const auto& [name, a] : hard_squares()) {
    const int64_t n = a.shape()[0];
    const Tensor b = *Tensor::normal(DType::kF64, {n, 3}, 9);
    const auto x = solve(a, b);
    ASSERT_TRUE(x) << name;
    const double residual = norm(*subtract(times(a, *x), b));
    EXPECT_LT(residual, 20 * double(n) * kEps * norm(a) * norm(*x)) << name;
  }
  // Known exactly.
  const Tensor a = *Tensor::from<int32_t>({2, 1, 1, 3}, {2, 2});
  EXPECT_EQ(*to_vector<double>(*solve(a, *Tensor::from<int32_t>({5, 10}, {2}))), (std::vector<double>{1, 3}));
}

TEST(Linalg, InverseAndDeterminant) {
  // The inverse of a Hilbert matrix is made of integers: its first is n^2, its determinant known.
  const Tensor inverted = *inverse(hilbert(5));
  EXPECT_NEAR(at(inverted, 0, 0), 25, 1e-9);
  EXPECT_NEAR(at(inverted, 4, 4), 44100, 1e-5);
  EXPECT_NEAR(*item(*determinant(hilbert(3))) * 2160, 1, 1e-13);
  // Vandermonde's: the product of all differences.
  const Tensor v = matrix_of(6, 6, [](int64_t i, int64_t j) { return std::pow(double(i + 1), j); });
  EXPECT_NEAR(*item(*determinant(v)) / 34560, 1, 1e-12);
  const Tensor singular = *Tensor::from<float>({1, 2, 2, 4}, {2, 2});
  EXPECT_EQ(*item(*determinant(singular)), 0.0);
  EXPECT_EQ(inverse(singular).error().message, "inverse: the matrix [2, 2] is singular");
  const Tensor turn = *Tensor::from<double>({0, 1, 1, 0}, {2, 2});
  EXPECT_EQ(*item(*determinant(turn)), -1.0);
}

TEST(Linalg, QrOfEveryShape) {
  for (const auto& [name, a] : hard_matrices()) {
    for (const QrForm form : {QrForm::kReduced, QrForm::kComplete}) {
      const auto factors = qr(a, form);
      ASSERT_TRUE(factors) << name;
      const int64_t m = a.shape()[0], n = a.shape()[1], k = form == QrForm::kComplete ? m : std::min(m, n);
      EXPECT_EQ(factors->q.shape(), (Shape{m, k})) << name;
      EXPECT_EQ(factors->r.shape(), (Shape{k, n})) << name;
      EXPECT_LT(orthogonality_units(factors->q), 10) << name;
      if (norm(a) > 0) {
        EXPECT_LT(error_units(a, times(factors->q, factors->r)), 10) << name;
      }
      for (int64_t i = 1; i < k; ++i) {
        for (int64_t j = 0; j < std::min(i, n); ++j) EXPECT_EQ(at(factors->r, i, j), 0.0) << name;
      }
    }
  }
}

TEST(Linalg, SvdOfEveryShape) {
  for (const auto& [name, a] : hard_matrices()) {
    const auto factors = svd(a);
    ASSERT_TRUE(factors) << name;
    const auto s = *to_vector<double>(factors->s);
    for (size_t i = 0; i < s.size(); ++i) EXPECT_TRUE(s[i] >= 0 && (i == 0 || s[i] <= s[i - 1])) << name;
    EXPECT_LT(orthogonality_units(factors->u), 10) << name;
    EXPECT_LT(orthogonality_units(factors->v), 10) << name;
    if (norm(a) > 0) {
      EXPECT_LT(error_units(a, times(times(factors->u, diagonal(factors->s)), turned(factors->v))), 10) << name;
    }
  }
}

TEST(Linalg, CholeskyAndLdlt) {
  for (const int64_t n : {1, 4, 10}) {
    const Tensor upside_down = *Tensor::copy_of(*hilbert(n).view().slice(0, {{}, {}, -1})->slice(1, {{}, {}, -1}));
    const auto pivoted = *ldlt(upside_down);  // its largest diagonal value is the last
    const Tensor in_order = rows_of(turned(rows_of(upside_down, pivoted.rows)), pivoted.rows);
    EXPECT_LT(error_units(in_order, times(times(pivoted.l, diagonal(pivoted.d)), turned(pivoted.l))), 10) << n;
    const Tensor a = hilbert(n);
    const Tensor l = *cholesky(a);
    EXPECT_LT(error_units(a, times(l, turned(l))), 10) << n;
    const auto factors = *ldlt(a);
    const Tensor shuffled = rows_of(turned(rows_of(a, factors.rows)), factors.rows);
    EXPECT_LT(error_units(shuffled, times(times(factors.l, diagonal(factors.d)), turned(factors.l))), 10) << n;
  }
  const Tensor negative_definite = *negative(hilbert(5));
  EXPECT_EQ(cholesky(negative_definite).error().message, "cholesky: the matrix [5, 5] is not positive definite");
  EXPECT_TRUE(ldlt(negative_definite));
  // Semidefinite: of rank one.
  const Tensor ones = *Tensor::full(DType::kF64, {4, 4}, 1);
  const auto factors = *ldlt(ones);
  EXPECT_LT(error_units(ones, times(times(factors.l, diagonal(factors.d)), turned(factors.l))), 10);
  EXPECT_FALSE(ldlt(*Tensor::from<double>({0, 1, 1, 0}, {2, 2})));
  EXPECT_FALSE(cholesky(*Tensor::from<double>({1, 2, 2, 1}, {2, 2})));
  // Only the lower triangle is read.
  EXPECT_EQ(*to_vector<double>(*cholesky(*Tensor::from<double>({4, 99, 2, 5}, {2, 2}))),
            (std::vector<double>{2, 0, 1, 2}));
}

TEST(Linalg, EigenvectorsOfSymmetricMatrices) {
  for (const auto& [name, square] : hard_squares()) {
    const Tensor a = *add(square, turned(square));
    const auto eigen = eigen_symmetric(a);
    ASSERT_TRUE(eigen) << name;
    EXPECT_LT(orthogonality_units(eigen->vectors), 10) << name;
    EXPECT_LT(error_units(a, times(times(eigen->vectors, diagonal(eigen->values)), turned(eigen->vectors))), 20)
        << name;
    const auto values = *to_vector<double>(eigen->values);
    for (size_t i = 1; i < values.size(); ++i) EXPECT_LE(values[i - 1], values[i]) << name;
  }
}

// a v = v lambda with complex v and lambda, in real parts and imaginary ones.
TEST(Linalg, EigenvectorsOfAnySquareMatrix) {
  for (const auto& [name, a] : hard_squares()) {
    const auto eigen = eigen_general(a);
    ASSERT_TRUE(eigen) << name;
    const Tensor re = diagonal(eigen->values_real), im = diagonal(eigen->values_imaginary);
    const Tensor &u = eigen->vectors_real, &w = eigen->vectors_imaginary;
    const double scale = 50 * double(a.shape()[0]) * kEps * norm(a);
    EXPECT_LT(norm(*subtract(times(a, u), *subtract(times(u, re), times(w, im)))), scale) << name;
    EXPECT_LT(norm(*subtract(times(a, w), *add(times(u, im), times(w, re)))), scale) << name;
    for (int64_t j = 0; j < a.shape()[0]; ++j) {
      EXPECT_NEAR(std::hypot(norm(*u.view().select(1, j)), norm(*w.view().select(1, j))), 1, 1e-12) << name;
    }
  }
  const auto turn = *eigen_general(*Tensor::from<double>({0, -1, 1, 0}, {2, 2}));
  EXPECT_NEAR(std::fabs((*to_vector<double>(turn.values_imaginary))[0]), 1, 1e-15);
}

TEST(Linalg, ConditionAndRank) {
  EXPECT_NEAR(*item(*condition_number(hilbert(5))), 4.7660725e5, 0.1);
  EXPECT_NEAR(*item(*condition_number(*Tensor::identity(DType::kF32, 6))), 1, 1e-12);
  EXPECT_TRUE(std::isinf(*item(*condition_number(*Tensor::zeros(DType::kF64, {3, 3})))));
  EXPECT_GT(*item(*condition_number(hilbert(12))), 1e15);
  EXPECT_EQ(*item(*matrix_rank(hilbert(6))), 6);
  EXPECT_EQ(*item(*matrix_rank(*Tensor::zeros(DType::kI8, {3, 5}))), 0);
  const Tensor a = *Tensor::normal(DType::kF64, {9, 4}, 1), b = *Tensor::normal(DType::kF64, {4, 9}, 2);
  EXPECT_EQ(*item(*matrix_rank(times(a, b))), 4);
}

TEST(Linalg, LeastSquaresIsThatOfLeastLength) {
  const Tensor tall = matrix_of(30, 6, [](int64_t i, int64_t j) { return std::pow(double(i) / 30, j); });
  const Tensor b = *Tensor::normal(DType::kF64, {30, 1}, 3);
  const Tensor x = *least_squares(tall, b);
  // What is left over stands at right angles to every column.
  const Tensor left = *subtract(times(tall, x), b);
  EXPECT_LT(norm(times(turned(tall), left)), 1e-10);
  // Of many solutions of a wide system, the one without a part that the matrix does not see.
  const Tensor wide = *Tensor::normal(DType::kF64, {4, 9}, 4), c = *Tensor::normal(DType::kF64, {4, 1}, 5);
  const Tensor y = *least_squares(wide, c);
  EXPECT_LT(norm(*subtract(times(wide, y), c)), 1e-12);
  const Tensor explained = times(turned(wide), *solve(times(wide, turned(wide)), times(wide, y)));
  EXPECT_LT(norm(*subtract(explained, y)), 1e-12);
  EXPECT_EQ(least_squares(tall, *Tensor::normal(DType::kF64, {30}, 3))->shape(), (Shape{6}));
}

TEST(Linalg, StacksAndTypes) {
  const Tensor stack = *Tensor::normal(DType::kF32, {2, 3, 4, 4}, 6);
  const TensorView seen = *stack.view().permute({1, 0, 3, 2});
  const auto all = *inverse(seen);
  EXPECT_EQ(all.dtype(), DType::kF32);
  ASSERT_EQ(all.shape(), (Shape{3, 2, 4, 4}));
  const Tensor one = *inverse(*seen.select(0, 2)->select(0, 1));
  EXPECT_EQ(*to_vector<float>(*all.view().select(0, 2)->select(0, 1)), *to_vector<float>(one));
  EXPECT_EQ(determinant(*Tensor::identity(DType::kI8, 3))->dtype(), DType::kF64);
  EXPECT_EQ(determinant(*Tensor::zeros(DType::kF32, {0, 2, 2}))->shape(), (Shape{0}));
  Tensor one_bad = *Tensor::zeros(DType::kF64, {3, 2, 2});
  ASSERT_TRUE(assign(one_bad.mutable_view(), *Tensor::identity(DType::kF64, 2)));
  ASSERT_TRUE(assign(*one_bad.mutable_view().select(0, 1), *Tensor::zeros(DType::kF64, {})));
  EXPECT_EQ(inverse(one_bad).error().message, "inverse: matrix 1 of [3, 2, 2] is singular");
}

TEST(Linalg, SaysWhatIsWrongWithAMatrix) {
  const auto zeros = [](Shape shape) { return *Tensor::zeros(DType::kF64, std::move(shape)); };
  EXPECT_EQ(lu(zeros({3})).error().message, "lu: a tensor of shape [3] is no matrix");
  EXPECT_EQ(inverse(zeros({2, 3})).error().message, "inverse: a matrix of shape [2, 3] is not square");
  EXPECT_EQ(svd(zeros({2, 0})).error().message, "svd: a matrix of shape [2, 0] has no rows or no columns");
  Tensor bad = zeros({2, 2, 3});
  (*bad.mutable_values<double>())[10] = std::nan("");
  EXPECT_EQ(qr(bad).error().message, "qr: a matrix of shape [2, 2, 3] is not finite at row 1, column 1");
  EXPECT_EQ(solve(zeros({2, 2}), zeros({3, 1})).error().message,
            "solve: right-hand sides of shape [3, 1] for a matrix of shape [2, 2]");
  EXPECT_EQ(solve(zeros({2, 2}), zeros({2})).error().message, "solve: the matrix [2, 2] is singular");
  EXPECT_FALSE(eigen_symmetric(zeros({2, 3})));
  EXPECT_FALSE(eigen_general(zeros({2, 3})));
  EXPECT_FALSE(least_squares(zeros({2, 3}), zeros({3})));
}

}  // namespace
}  // namespace bitnet
