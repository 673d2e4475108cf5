#pragma once

#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace bitnet {

// a b by NumPy's rules: matrices [..., m, k] and [..., k, n], the axes in front repeating to a common shape; a vector
// [k] is a row on the left and a column on the right, and the result lacks its axis. Any strides, types promoted
// (tensor/elementwise.h).
//
// F32, F16 and BF16 go through the trainer's products (kernels/cpu/dense_product.h) in float, on all threads of the
// pool, with the same bits for every number of threads and instruction set, and are rounded once; F64 and integers,
// which wrap, through Eigen. One caller a pool at a time. Fails where shapes do not fit: "cannot multiply [2, 3] by [4,
// 5]".
Result<Tensor> matmul(ThreadPool& pool, TensorView a, TensorView b);

}  // namespace bitnet
