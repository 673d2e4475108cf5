#pragma once

#include "tensor/tensor.h"

namespace bitnet {

// c = a b for a [m, k], b [k, n], c [m, n], all contiguous and of one type, F64, I64 or U64 (which wrap): what
// matmul() (kernels/matmul.h) has no kernels for.
void multiply_by_eigen(TensorView a, TensorView b, MutableTensorView c);

}  // namespace bitnet
