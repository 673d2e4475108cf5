#include "tensor/linalg/product.h"

#include <Eigen/Core>

namespace bitnet {
namespace {

template <class C>
void multiply(const TensorView& a, const TensorView& b, const MutableTensorView& c) {
  using Matrix = Eigen::Matrix<C, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto map = [](const TensorView& view) {
    return Eigen::Map<const Matrix>(reinterpret_cast<const C*>(view.data()), view.shape()[0], view.shape()[1]);
  };
  Eigen::Map<Matrix>(reinterpret_cast<C*>(c.data()), c.shape()[0], c.shape()[1]).noalias() = map(a) * map(b);
}

}  // namespace

void multiply_by_eigen(TensorView a, TensorView b, MutableTensorView c) {
  // Signed integers as unsigned ones: the same bits, and they may wrap.
  if (a.dtype() == DType::kF64) {
    multiply<double>(a, b, c);
  } else {
    multiply<uint64_t>(a, b, c);
  }
}

}  // namespace bitnet
