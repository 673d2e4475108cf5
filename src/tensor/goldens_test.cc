#include "tensor/activation.h"
#include "tensor/elementwise.h"
#include "tensor/linalg/linalg.h"
#include "tensor/reduce.h"
#include "tensor/test_goldens.h"

#include <algorithm>
#include <complex>

namespace bitnet {
namespace {

using Inputs = std::vector<TensorView>;
using Args = GoldenJson;
using Operations = std::map<std::string, GoldenOperation>;

DType type_of(const Args& args) { return *parse_dtype(args["type"].get<std::string>()); }

template <class Op>
GoldenOperation binary(Op op) {
  return [op](const Inputs& in, const Args&) { return apply(op, in[0], in[1]); };
}
GoldenOperation comparing(CompareOp op) {
  return [op](const Inputs& in, const Args&) { return compare(op, in[0], in[1]); };
}
GoldenOperation unary(UnaryOp op) {
  return [op](const Inputs& in, const Args&) { return apply(op, in[0]); };
}
ReduceOptions options_of(const Args& args) {
  return {args["axes"].get<std::vector<int64_t>>(), args["keep_dims"].get<bool>(), args.value("ddof", int64_t{0})};
}
GoldenOperation reducing(Reduction reduction) {
  return [reduction](const Inputs& in, const Args& args) { return reduce(reduction, in[0], options_of(args)); };
}
GoldenOperation of_matrix(Result<Tensor> (*function)(TensorView)) {
  return [function](const Inputs& in, const Args&) { return function(in[0]); };
}

// Real parts, then imaginary ones, in order of both.
Result<Tensor> sorted_eigenvalues(TensorView a) {
  BN_ASSIGN_OR_RETURN(const GeneralEigen eigen, eigen_general(a));
  BN_ASSIGN_OR_RETURN(std::vector<double> real, to_vector<double>(eigen.values_real));
  BN_ASSIGN_OR_RETURN(std::vector<double> imaginary, to_vector<double>(eigen.values_imaginary));
  std::vector<std::pair<double, double>> values;
  for (size_t i = 0; i < real.size(); ++i) values.emplace_back(real[i], imaginary[i]);
  std::sort(values.begin(), values.end(), [](const auto& x, const auto& y) {
    return std::fabs(x.first - y.first) > 1e-9 ? x.first < y.first : x.second < y.second;
  });
  std::vector<double> out;
  for (const auto& value : values) out.push_back(value.first);
  for (const auto& value : values) out.push_back(value.second);
  BN_ASSIGN_OR_RETURN(const Tensor wide, Tensor::from(std::span<const double>(out), {2, int64_t(real.size())}));
  return cast(wide, eigen.values_real.dtype());
}

TEST(TensorGoldens, ViewsSeeTheValuesThatNumpySees) {
  expect_goldens({{"copy", [](const Inputs& in, const Args&) { return Tensor::copy_of(in[0]); }}});
}

TEST(TensorGoldens, Creation) {
  const auto random = [](auto make) {
    return [make](const Inputs&, const Args& args) {
      return make(type_of(args), args["shape"].template get<Shape>(), args["seed"].template get<uint64_t>(),
                  args["stream"].template get<uint64_t>());
    };
  };
  expect_goldens({{"arange",
                   [](const Inputs&, const Args& args) {
                     return Tensor::arange(type_of(args), args["begin"], args["end"], args["step"]);
                   }},
                  {"uniform", random(Tensor::uniform)},
                  {"normal", random(Tensor::normal)},
                  {"cast", [](const Inputs& in, const Args& args) { return cast(in[0], type_of(args)); }},
                  {"concatenate",
                   [](const Inputs& in, const Args& args) { return concatenate(in, args["axis"].get<int64_t>()); }}});
}

TEST(TensorGoldens, Arithmetic) {
  expect_goldens({{"add", binary(BinaryOp::kAdd)},
                  {"subtract", binary(BinaryOp::kSubtract)},
                  {"multiply", binary(BinaryOp::kMultiply)},
                  {"divide", binary(BinaryOp::kDivide)},
                  {"floor_divide", binary(BinaryOp::kFloorDivide)},
                  {"remainder", binary(BinaryOp::kRemainder)},
                  {"power", binary(BinaryOp::kPower)},
                  {"minimum", binary(BinaryOp::kMinimum)},
                  {"maximum", binary(BinaryOp::kMaximum)},
                  {"multiply_number",
                   [](const Inputs& in, const Args& args) { return multiply(in[0], args["number"].get<double>()); }}});
}

TEST(TensorGoldens, ComparisonAndLogic) {
  expect_goldens({{"equal", comparing(CompareOp::kEqual)},
                  {"not_equal", comparing(CompareOp::kNotEqual)},
                  {"less", comparing(CompareOp::kLess)},
                  {"less_equal", comparing(CompareOp::kLessEqual)},
                  {"greater", comparing(CompareOp::kGreater)},
                  {"greater_equal", comparing(CompareOp::kGreaterEqual)},
                  {"logical_and", [](const Inputs& in, const Args&) { return logical_and(in[0], in[1]); }},
                  {"logical_or", [](const Inputs& in, const Args&) { return logical_or(in[0], in[1]); }},
                  {"logical_not", [](const Inputs& in, const Args&) { return logical_not(in[0]); }},
                  {"is_nan", [](const Inputs& in, const Args&) { return is_nan(in[0]); }},
                  {"is_finite", [](const Inputs& in, const Args&) { return is_finite(in[0]); }},
                  {"where", [](const Inputs& in, const Args&) { return where(in[0], in[1], in[2]); }},
                  {"clip", [](const Inputs& in, const Args& args) { return clip(in[0], args["low"], args["high"]); }}});
}

TEST(TensorGoldens, Functions) {
  expect_goldens({{"negative", unary(UnaryOp::kNegative)}, {"absolute", unary(UnaryOp::kAbsolute)},
                  {"sign", unary(UnaryOp::kSign)},         {"square", unary(UnaryOp::kSquare)},
                  {"floor", unary(UnaryOp::kFloor)},       {"ceil", unary(UnaryOp::kCeil)},
                  {"round", unary(UnaryOp::kRound)},       {"truncate", unary(UnaryOp::kTruncate)},
                  {"sqrt", unary(UnaryOp::kSqrt)},         {"reciprocal", unary(UnaryOp::kReciprocal)},
                  {"exp", unary(UnaryOp::kExp)},           {"expm1", unary(UnaryOp::kExpm1)},
                  {"log", unary(UnaryOp::kLog)},           {"log2", unary(UnaryOp::kLog2)},
                  {"log1p", unary(UnaryOp::kLog1p)},       {"sin", unary(UnaryOp::kSin)},
                  {"cos", unary(UnaryOp::kCos)},           {"tan", unary(UnaryOp::kTan)},
                  {"sinh", unary(UnaryOp::kSinh)},         {"cosh", unary(UnaryOp::kCosh)},
                  {"tanh", unary(UnaryOp::kTanh)},         {"erf", unary(UnaryOp::kErf)}});
}

TEST(TensorGoldens, Reductions) {
  expect_goldens(
      {{"sum", reducing(Reduction::kSum)},
       {"product", reducing(Reduction::kProduct)},
       {"min", reducing(Reduction::kMinimum)},
       {"max", reducing(Reduction::kMaximum)},
       {"mean", reducing(Reduction::kMean)},
       {"variance", reducing(Reduction::kVariance)},
       {"standard_deviation", reducing(Reduction::kStandardDeviation)},
       {"count_nonzero", reducing(Reduction::kCountNonzero)},
       {"any", reducing(Reduction::kAny)},
       {"all", reducing(Reduction::kAll)},
       {"argmin", [](const Inputs& in, const Args& args) { return argmin(in[0], options_of(args)); }},
       {"argmax", [](const Inputs& in, const Args& args) { return argmax(in[0], options_of(args)); }},
       {"median", [](const Inputs& in, const Args& args) { return median(in[0], options_of(args)); }},
       {"quantile", [](const Inputs& in, const Args& args) { return quantile(in[0], args["q"], options_of(args)); }}});
}

TEST(TensorGoldens, Activations) {
  Operations operations;
  const std::pair<const char*, Activation> named[] = {{"relu", Activation::kRelu}, {"relu2", Activation::kRelu2},
                                                      {"gelu", Activation::kGelu}, {"gelu_tanh", Activation::kGeluTanh},
                                                      {"silu", Activation::kSilu}, {"sigmoid", Activation::kSigmoid}};
  for (const auto& entry : named) {
    const std::string name = entry.first;
    const Activation activation = entry.second;
    operations[name] = [activation](const Inputs& in, const Args&) { return activate(activation, in[0]); };
    operations[name + "_gradient"] = [activation](const Inputs& in, const Args&) {
      return activate_gradient(activation, in[0], in[1]);
    };
  }
  operations["tanh"] = [](const Inputs& in, const Args&) { return activate(Activation::kTanh, in[0]); };
  operations["tanh_gradient"] = [](const Inputs& in, const Args&) {
    return activate_gradient(Activation::kTanh, in[0], in[1]);
  };
  operations["softmax"] = [](const Inputs& in, const Args& args) { return softmax(in[0], args["axis"]); };
  operations["log_softmax"] = [](const Inputs& in, const Args& args) { return log_softmax(in[0], args["axis"]); };
  operations["softmax_gradient"] = [](const Inputs& in, const Args& args) {
    return softmax_gradient(in[0], in[1], args["axis"]);
  };
  operations["log_softmax_gradient"] = [](const Inputs& in, const Args& args) {
    return log_softmax_gradient(in[0], in[1], args["axis"]);
  };
  expect_goldens(operations);
}

TEST(TensorGoldens, LinearAlgebra) {
  expect_goldens({{"solve", [](const Inputs& in, const Args&) { return solve(in[0], in[1]); }},
                  {"least_squares", [](const Inputs& in, const Args&) { return least_squares(in[0], in[1]); }},
                  {"inverse", of_matrix(inverse)},
                  {"determinant", of_matrix(determinant)},
                  {"singular_values", of_matrix(singular_values)},
                  {"condition_number", of_matrix(condition_number)},
                  {"matrix_rank", of_matrix(matrix_rank)},
                  {"eigenvalues_general", of_matrix(sorted_eigenvalues)},
                  {"eigenvalues_symmetric", [](const Inputs& in, const Args&) -> Result<Tensor> {
                     BN_ASSIGN_OR_RETURN(SymmetricEigen eigen, eigen_symmetric(in[0]));
                     return std::move(eigen.values);
                   }}});
}

}  // namespace
}  // namespace bitnet
