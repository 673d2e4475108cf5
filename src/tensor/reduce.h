#pragma once

#include "tensor/tensor.h"

#include <cstdint>
#include <optional>
#include <vector>

// Values of some axes taken together. NaN goes through, as in NumPy; of no values sum is 0, product 1, mean, variance,
// median and quantile NaN, and minimum, maximum and their places are errors.
//
// Sums and products are computed in double (of integers: in 64 bits, wrapping) and rounded once. Their order is that of
// the values' places in the view, whatever its strides: runs of 1024, each as 8 interleaved sums added up by pairs, the
// runs one after another.
namespace bitnet {

struct ReduceOptions {
  std::vector<int64_t> axes = {};  // none: all
  bool keep_dims = false;          // axes that are taken together stay with length 1
  int64_t ddof = 0;                // variance divides by n - ddof
};

enum class Reduction : uint8_t {
  kSum,      // of integers and BOOL: I64, of U64: U64
  kProduct,  // the same
  kMinimum,
  kMaximum,
  kMean,               // of integers and BOOL: F64, as the following
  kVariance,           // in two passes
  kStandardDeviation,  // its root
  kCountNonzero,       // I64; NaN is not zero
  kAny,                // BOOL
  kAll,
};
Result<Tensor> reduce(Reduction reduction, TensorView x, const ReduceOptions& options = {});

inline Result<Tensor> sum(TensorView x, const ReduceOptions& o = {}) { return reduce(Reduction::kSum, x, o); }
inline Result<Tensor> product(TensorView x, const ReduceOptions& o = {}) { return reduce(Reduction::kProduct, x, o); }
inline Result<Tensor> min(TensorView x, const ReduceOptions& o = {}) { return reduce(Reduction::kMinimum, x, o); }
inline Result<Tensor> max(TensorView x, const ReduceOptions& o = {}) { return reduce(Reduction::kMaximum, x, o); }
inline Result<Tensor> mean(TensorView x, const ReduceOptions& o = {}) { return reduce(Reduction::kMean, x, o); }
inline Result<Tensor> variance(TensorView x, const ReduceOptions& o = {}) { return reduce(Reduction::kVariance, x, o); }
inline Result<Tensor> standard_deviation(TensorView x, const ReduceOptions& o = {}) {
  return reduce(Reduction::kStandardDeviation, x, o);
}

// The place of the first least (largest) value along one axis, or of all values in row-major order; NaN counts as both.
// I64. At most one axis.
Result<Tensor> argmin(TensorView x, const ReduceOptions& options = {});
Result<Tensor> argmax(TensorView x, const ReduceOptions& options = {});

// The middle value, or the mean of the two in the middle. F64 for integers.
Result<Tensor> median(TensorView x, const ReduceOptions& options = {});
// The value that a share `q` (0 to 1) of the others lie below: linear between two neighbours, as NumPy's default.
Result<Tensor> quantile(TensorView x, double q, const ReduceOptions& options = {});

// |a - b| / |a| in the Euclidean norm; 1 where all of a is zero and something of b is not.
Result<double> relative_error(TensorView a, TensorView b);
// The place, in row-major order, of the first value that is NaN or infinite.
Result<std::optional<int64_t>> find_nonfinite(TensorView x);

}  // namespace bitnet
