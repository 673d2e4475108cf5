#include "tensor/activation.h"

#include "tensor/elementwise_support.h"

#include <cmath>
#include <numeric>
#include <vector>

namespace bitnet {
namespace {

template <class C>
C sigmoid(C x) {
  return C(1) / (C(1) + std::exp(-x));
}
// 1 - tanh(x)^2 without its cancellation.
template <class C>
C tanh_slope(C x) {
  const C cosh = std::cosh(x);
  return C(1) / cosh / cosh;
}
template <class C>
constexpr C kRootHalf = C(0.70710678118654752440);
template <class C>
constexpr C kRootTwoOverPi = C(0.79788456080286535588);
template <class C>
constexpr C kCubic = C(0.044715);

template <Activation kActivation, class C>
C value_of(C x) {
  if constexpr (kActivation == Activation::kRelu) return x < 0 ? C(0) : x;
  if constexpr (kActivation == Activation::kRelu2) return x < 0 ? C(0) : x * x;
  // erfc keeps its precision where 1 + erf would cancel.
  if constexpr (kActivation == Activation::kGelu) return C(0.5) * x * std::erfc(-x * kRootHalf<C>);
  if constexpr (kActivation == Activation::kGeluTanh) {
    return C(0.5) * x * (C(1) + std::tanh(kRootTwoOverPi<C> * (x + kCubic<C> * x * x * x)));
  }
  if constexpr (kActivation == Activation::kSilu) return x * sigmoid(x);
  if constexpr (kActivation == Activation::kSigmoid) return sigmoid(x);
  if constexpr (kActivation == Activation::kTanh) return std::tanh(x);
}

template <Activation kActivation, class C>
C slope_of(C x) {
  if constexpr (kActivation == Activation::kRelu) return x > 0 ? C(1) : x != x ? x : C(0);
  if constexpr (kActivation == Activation::kRelu2) return x < 0 ? C(0) : 2 * x;
  if constexpr (kActivation == Activation::kGelu) {
    const C density = std::exp(C(-0.5) * x * x) * kRootTwoOverPi<C> * C(0.5);
    return C(0.5) * std::erfc(-x * kRootHalf<C>) + x * density;
  }
  if constexpr (kActivation == Activation::kGeluTanh) {
    const C u = kRootTwoOverPi<C> * (x + kCubic<C> * x * x * x), inner = 1 + 3 * kCubic<C> * x * x;
    return C(0.5) * (1 + std::tanh(u)) + C(0.5) * x * tanh_slope(u) * kRootTwoOverPi<C> * inner;
  }
  if constexpr (kActivation == Activation::kSilu) {
    return sigmoid(x) * (1 + x * sigmoid(-x));
  }
  if constexpr (kActivation == Activation::kSigmoid) return sigmoid(x) * sigmoid(-x);
  if constexpr (kActivation == Activation::kTanh) return tanh_slope(x);
}

// fn(std::integral_constant of the activation).
template <class Fn>
void visit_activation(Activation activation, const Fn& fn) {
  using A = Activation;
  switch (activation) {
    case A::kRelu: return fn(std::integral_constant<A, A::kRelu>());
    case A::kRelu2: return fn(std::integral_constant<A, A::kRelu2>());
    case A::kGelu: return fn(std::integral_constant<A, A::kGelu>());
    case A::kGeluTanh: return fn(std::integral_constant<A, A::kGeluTanh>());
    case A::kSilu: return fn(std::integral_constant<A, A::kSilu>());
    case A::kSigmoid: return fn(std::integral_constant<A, A::kSigmoid>());
    case A::kTanh: return fn(std::integral_constant<A, A::kTanh>());
  }
}

template <class Fn>
void visit_float(DType type, const Fn& fn) {
  if (type == DType::kF64) {
    fn(double());
  } else {
    fn(float());
  }
}

Result<DType> float_type(DType type) {
  BN_RETURN_IF_ERROR(check_elements(type));
  return is_float(type) ? type : DType::kF64;
}

// The view with `axis` as its last, the others in order.
template <class View>
Result<View> with_axis_last(const View& view, int64_t axis) {
  std::vector<int64_t> axes(view.shape().size());
  std::iota(axes.begin(), axes.end(), int64_t{0});
  axes.erase(axes.begin() + axis);
  axes.push_back(axis);
  return view.permute(axes);
}

// row(a, b, out, n) on the values of each row along an axis, in double. b may be a.
template <class Row>
Result<Tensor> along_axis(DType type, TensorView a, TensorView b, int64_t axis, const Row& row) {
  BN_ASSIGN_OR_RETURN(axis, checked_axis(axis, a.shape()));
  if (a.shape() != b.shape()) {
    return invalid_argument("the gradient has shape {}, the values {}", shape_string(b.shape()),
                            shape_string(a.shape()));
  }
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(type, a.shape()));
  BN_ASSIGN_OR_RETURN(a, with_axis_last(a, axis));
  BN_ASSIGN_OR_RETURN(b, with_axis_last(b, axis));
  BN_ASSIGN_OR_RETURN(const MutableTensorView place, with_axis_last(out.mutable_view(), axis));
  ElementReader<double> read_a(a), read_b(b);
  ElementWriter<double> writer(place, true);
  const int64_t n = a.shape().back();
  std::vector<double> a_row(size_t(n), 0.0), b_row(a_row), out_row(a_row);
  for (int64_t left = out.n_values(); left > 0; left -= n) {
    row(read_a.read(n, a_row.data()), read_b.read(n, b_row.data()), out_row.data(), n);
    writer.write(n, out_row.data());
  }
  return out;
}

// out[i] = exp(x[i] - max), and their sum.
double exponentials(const double* x, double* out, int64_t n) {
  double largest = x[0], sum = 0;
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = std::exp(x[i] - largest);
    sum += out[i];
  }
  return sum;
}

}  // namespace

Result<Tensor> activate(Activation activation, TensorView x) {
  BN_ASSIGN_OR_RETURN(const DType type, float_type(x.dtype()));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(type, x.shape()));
  visit_activation(activation, [&](auto which) {
    visit_float(type, [&](auto computed) {
      using C = decltype(computed);
      for_blocks<C>(x, out.mutable_view(), false, [](const C* BN_RESTRICT in, C* BN_RESTRICT results, int64_t n) {
        for (int64_t i = 0; i < n; ++i) results[i] = value_of<decltype(which)::value>(in[i]);
      });
    });
  });
  return out;
}

Result<Tensor> activate_gradient(Activation activation, TensorView x, TensorView dy) {
  BN_ASSIGN_OR_RETURN(const DType both, promote(x.dtype(), dy.dtype()));
  BN_ASSIGN_OR_RETURN(const DType type, float_type(both));
  if (x.shape() != dy.shape()) {
    return invalid_argument("the gradient has shape {}, the values {}", shape_string(dy.shape()),
                            shape_string(x.shape()));
  }
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(type, x.shape()));
  visit_activation(activation, [&](auto which) {
    visit_float(type, [&](auto computed) {
      using C = decltype(computed);
      const auto block = [](const C* BN_RESTRICT in, const C* BN_RESTRICT gradient, C* BN_RESTRICT results, int64_t n) {
        for (int64_t i = 0; i < n; ++i) results[i] = slope_of<decltype(which)::value>(in[i]) * gradient[i];
      };
      for_blocks<C>(x, dy, out.mutable_view(), false, block);
    });
  });
  return out;
}

Result<Tensor> softmax(TensorView x, int64_t axis) {
  BN_ASSIGN_OR_RETURN(const DType type, float_type(x.dtype()));
  return along_axis(type, x, x, axis, [](const double* in, const double*, double* out, int64_t n) {
    const double sum = exponentials(in, out, n);
    for (int64_t i = 0; i < n; ++i) out[i] /= sum;
  });
}

Result<Tensor> log_softmax(TensorView x, int64_t axis) {
  BN_ASSIGN_OR_RETURN(const DType type, float_type(x.dtype()));
  return along_axis(type, x, x, axis, [](const double* in, const double*, double* out, int64_t n) {
    const double largest = *std::max_element(in, in + n), log_sum = std::log(exponentials(in, out, n));
    for (int64_t i = 0; i < n; ++i) out[i] = (in[i] - largest) - log_sum;
  });
}

Result<Tensor> softmax_gradient(TensorView y, TensorView dy, int64_t axis) {
  BN_ASSIGN_OR_RETURN(const DType both, promote(y.dtype(), dy.dtype()));
  BN_ASSIGN_OR_RETURN(const DType type, float_type(both));
  return along_axis(type, y, dy, axis, [](const double* p, const double* gradient, double* out, int64_t n) {
    double weighted = 0;
    for (int64_t i = 0; i < n; ++i) weighted += p[i] * gradient[i];
    for (int64_t i = 0; i < n; ++i) out[i] = p[i] * (gradient[i] - weighted);
  });
}

Result<Tensor> log_softmax_gradient(TensorView y, TensorView dy, int64_t axis) {
  BN_ASSIGN_OR_RETURN(const DType both, promote(y.dtype(), dy.dtype()));
  BN_ASSIGN_OR_RETURN(const DType type, float_type(both));
  return along_axis(type, y, dy, axis, [](const double* log_p, const double* gradient, double* out, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += gradient[i];
    for (int64_t i = 0; i < n; ++i) out[i] = gradient[i] - std::exp(log_p[i]) * sum;
  });
}

}  // namespace bitnet
