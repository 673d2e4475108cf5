#pragma once

#include "tensor/tensor.h"

#include <cstdint>

// Activation functions and their gradients. Floats keep their type, integers give F64; F16 and BF16 are computed in
// float, softmax in double, and rounded once.
namespace bitnet {

enum class Activation : uint8_t {
  kRelu,
  kRelu2,     // max(x, 0)^2
  kGelu,      // x Phi(x), Phi the normal distribution
  kGeluTanh,  // its approximation with tanh (Hendrycks & Gimpel 2016)
  kSilu,      // x sigmoid(x)
  kSigmoid,
  kTanh,
};
Result<Tensor> activate(Activation activation, TensorView x);
// The gradient by x of a loss whose gradient by activate(x) is dy. At the kink of kRelu it is 0.
Result<Tensor> activate_gradient(Activation activation, TensorView x, TensorView dy);

// exp(x) / sum(exp(x)) along an axis, and its logarithm. NaN where a value is NaN, or infinite and the largest.
Result<Tensor> softmax(TensorView x, int64_t axis = -1);
Result<Tensor> log_softmax(TensorView x, int64_t axis = -1);
// The gradient by x, given the function's value y and the loss's gradient by it.
Result<Tensor> softmax_gradient(TensorView y, TensorView dy, int64_t axis = -1);
Result<Tensor> log_softmax_gradient(TensorView y, TensorView dy, int64_t axis = -1);

}  // namespace bitnet
