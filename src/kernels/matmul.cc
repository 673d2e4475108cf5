#include "kernels/matmul.h"

#include "kernels/cpu/dense_product.h"
#include "kernels/cpu/dispatch.h"
#include "tensor/element_stream.h"
#include "tensor/elementwise.h"
#include "tensor/linalg/product.h"

#include <utility>

namespace bitnet {
namespace {

// Multiplications of a product that one thread has done before others have woken up.
constexpr int64_t kAlone = int64_t{1} << 18;

// A stack of products [..., m, n] = [..., m, k] [..., k, n], both factors repeated to the same axes in front.
struct Products {
  TensorView a, b;
  Shape stack_shape;
  int64_t m = 0, k = 0, n = 0;

  static Result<Products> of(const TensorView& a, const TensorView& b) {
    Products out;
    if (a.rank() == 0 || b.rank() == 0) {
      return invalid_argument("cannot multiply {} by {}: a single number is no matrix", shape_string(a.shape()),
                              shape_string(b.shape()));
    }
    BN_ASSIGN_OR_RETURN(out.a, a.rank() == 1 ? a.unsqueeze(0) : a);
    BN_ASSIGN_OR_RETURN(out.b, b.rank() == 1 ? b.unsqueeze(-1) : b);
    const Shape left = out.a.shape(), right = out.b.shape();
    out.m = left[left.size() - 2];
    out.k = left.back();
    out.n = right.back();
    const auto stack = broadcast_shapes({left.begin(), left.end() - 2}, {right.begin(), right.end() - 2});
    if (right[right.size() - 2] != out.k || !stack) {
      return invalid_argument("cannot multiply {} by {}", shape_string(a.shape()), shape_string(b.shape()));
    }
    // Many matrices times one are one matrix of all their rows, where strides allow.
    if (right.size() == 2 && left.size() > 2) {
      if (const auto rows = out.a.reshape({-1, out.k}); rows && out.k > 0) {
        out.a = *rows;
        out.m = rows->shape()[0];
        return out;
      }
    }
    out.stack_shape = *stack;
    Shape of_a = *stack, of_b = *stack;
    of_a.insert(of_a.end(), {out.m, out.k});
    of_b.insert(of_b.end(), {out.k, out.n});
    BN_ASSIGN_OR_RETURN(out.a, out.a.broadcast_to(of_a));
    BN_ASSIGN_OR_RETURN(out.b, out.b.broadcast_to(of_b));
    return out;
  }

  Shape out_shape() const {
    Shape shape = stack_shape;
    shape.insert(shape.end(), {m, n});
    return shape;
  }

  // fn(a [m, k], b [k, n], c [m, n]) for each product.
  template <class Fn>
  void for_each(const TensorView& left, const TensorView& right, const MutableTensorView& c, const Fn& fn) const {
    const int64_t rank = int64_t(stack_shape.size()), count = int64_t(*element_count(stack_shape));
    const auto walk_of = [&](const TensorView& view) {
      return StridedWalk(stack_shape, {view.strides().begin(), view.strides().begin() + rank});
    };
    const auto matrix_at = [&](const auto& view, int64_t offset) {
      auto matrix = view;
      return decltype(matrix)(view.dtype(), {view.shape().end() - 2, view.shape().end()},
                              {view.strides().end() - 2, view.strides().end()},
                              view.data() + offset * dtype_info(view.dtype()).block_bytes);
    };
    StridedWalk a_walk = walk_of(left), b_walk = walk_of(right);
    for (int64_t i = 0; i < count; ++i) {
      fn(matrix_at(left, a_walk.offset()), matrix_at(right, b_walk.offset()), matrix_at(c, i * m * n));
      a_walk.advance(1);
      b_walk.advance(1);
    }
  }
};

Status multiply_floats(ThreadPool& pool, const Products& products, Tensor& c) {
  BN_ASSIGN_OR_RETURN(const CpuKernels* const kernels, choose_cpu_kernels());
  Tensor a_floats, b_floats;
  TensorView a = products.a, b = products.b;
  if (a.dtype() != DType::kF32) {
    BN_ASSIGN_OR_RETURN(a_floats, cast(a, DType::kF32));
    a = a_floats.view();
  }
  if (b.dtype() != DType::kF32) {
    BN_ASSIGN_OR_RETURN(b_floats, cast(b, DType::kF32));
    b = b_floats.view();
  }
  ThreadPool alone(1);
  DenseProduct product(products.m * products.n * products.k <= kAlone ? alone : pool, *kernels);
  products.for_each(a, b, c.mutable_view(), [&](const TensorView& x, const TensorView& y, const MutableTensorView& z) {
    const DenseFactor left{reinterpret_cast<const float*>(x.data()), products.m, x.strides()[0], x.strides()[1]};
    const DenseFactor right{reinterpret_cast<const float*>(y.data()), products.n, y.strides()[1], y.strides()[0]};
    product.multiply(left, right, products.k, false, reinterpret_cast<float*>(z.data()), products.n);
  });
  return ok();
}

}  // namespace

Result<Tensor> matmul(ThreadPool& pool, TensorView a, TensorView b) {
  BN_ASSIGN_OR_RETURN(const DType type, promote(a.dtype(), b.dtype()));
  BN_ASSIGN_OR_RETURN(const Products products, Products::of(a, b));
  const bool floats = is_float(type) && type != DType::kF64;
  const DType wide = floats ? DType::kF32 : is_float(type) || type == DType::kU64 ? type : DType::kI64;
  BN_ASSIGN_OR_RETURN(Tensor c, Tensor::zeros(wide, products.out_shape()));
  if (c.n_values() > 0 && products.k > 0) {
    if (floats) {
      BN_RETURN_IF_ERROR(multiply_floats(pool, products, c));
    } else {
      BN_ASSIGN_OR_RETURN(const Tensor left, cast(products.a, wide));
      BN_ASSIGN_OR_RETURN(const Tensor right, cast(products.b, wide));
      products.for_each(left, right, c.mutable_view(), multiply_by_eigen);
    }
  }
  if (type != wide) {
    BN_ASSIGN_OR_RETURN(c, cast(c, type));
  }
  // Without the axes that vectors were given, and with those that were taken together.
  Shape shape = products.stack_shape;
  if (b.rank() <= 2 && a.rank() > 2) shape.assign(a.shape().begin(), a.shape().end() - 2);
  if (a.rank() != 1) shape.push_back(a.shape()[size_t(a.rank() - 2)]);
  if (b.rank() != 1) shape.push_back(products.n);
  return std::move(c).reshaped(std::move(shape));
}

}  // namespace bitnet
