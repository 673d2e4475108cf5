#pragma once

#include "memory/buffer.h"
#include "tensor/view.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bitnet {

// An array that owns its values: row-major without gaps, aligned to a cache line. Movable; a copy is named clone().
// A const tensor may be read from any number of threads.
//
// Functions of this room take TensorView and return Tensor; a tensor converts to a view of itself, which must not
// outlive it. Shapes and types that do not fit are errors that name them.
class Tensor {
 public:
  Tensor() = default;  // no values: F32 [0]

  // Every type, packed ones too, whose values are then bytes only.
  static Result<Tensor> zeros(DType dtype, Shape shape);
  static Result<Tensor> full(DType dtype, Shape shape, double value);
  // begin, begin + step, ... before `end`, at position i begin + i * step computed in double.
  static Result<Tensor> arange(DType dtype, double begin, double end, double step = 1);
  static Result<Tensor> identity(DType dtype, int64_t n);
  // A copy of row-major values.
  template <class T>
  static Result<Tensor> from(std::span<const T> values, Shape shape) {
    BN_ASSIGN_OR_RETURN(const TensorView view, TensorView::of(values, std::move(shape)));
    return copy_of(view);
  }
  template <class T>
  static Result<Tensor> from(std::initializer_list<T> values, Shape shape) {
    return from(std::span<const T>(values.begin(), values.size()), std::move(shape));
  }
  // Value i is a function of the seed, the stream and i alone (base/rng.h), whatever the type's precision.
  static Result<Tensor> uniform(DType dtype, Shape shape, uint64_t seed, uint64_t stream = 0);  // in [0, 1)
  static Result<Tensor> normal(DType dtype, Shape shape, uint64_t seed, uint64_t stream = 0);
  // The values of a view in row-major order.
  static Result<Tensor> copy_of(TensorView view);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return int64_t(shape_.size()); }
  int64_t n_values() const { return view().n_values(); }
  std::span<const std::byte> bytes() const { return buffer_.bytes(); }
  std::span<std::byte> bytes() { return buffer_.bytes(); }

  TensorView view() const { return {dtype_, shape_, contiguous_strides(shape_), buffer_.data()}; }
  MutableTensorView mutable_view() { return {dtype_, shape_, contiguous_strides(shape_), buffer_.data()}; }
  operator TensorView() const { return view(); }

  template <class T>
  Result<std::span<const T>> values() const {
    return view().values<T>();
  }
  template <class T>
  Result<std::span<T>> mutable_values() {
    return mutable_view().template values<T>();
  }
  Result<Tensor> clone() const { return copy_of(view()); }
  // The same values in another shape, one length of which may be -1.
  Result<Tensor> reshaped(Shape shape) &&;

 private:
  Tensor(DType dtype, Shape shape, Buffer buffer)
      : dtype_(dtype), shape_(std::move(shape)), buffer_(std::move(buffer)) {}

  DType dtype_ = DType::kF32;
  Shape shape_ = {0};
  Buffer buffer_;
};

// out = from, repeated to out's shape and converted to its type: to integers towards zero, cut off at the type's limits
// with NaN as 0; between integers modulo 2^bits; to BOOL as "is not zero"; to floats rounded half to even. The two may
// overlap.
Status assign(MutableTensorView out, TensorView from);
// A tensor of that type with these values, as assign() converts them.
Result<Tensor> cast(TensorView from, DType dtype);
// One after another along an axis: shapes agree on all others, types are promoted (tensor/elementwise.h).
Result<Tensor> concatenate(std::span<const TensorView> parts, int64_t axis);

// One value as a double; refused when there are others.
Result<double> item(TensorView view);
// The values in row-major order, converted as assign() does.
template <class T>
Result<std::vector<T>> to_vector(TensorView view) {
  static_assert(!std::is_same_v<T, bool>, "std::vector<bool> has no elements: read BOOL as uint8_t");
  std::vector<T> out(size_t(view.n_values()));
  BN_RETURN_IF_ERROR(assign(*MutableTensorView::of(std::span<T>(out), view.shape()), view));
  return out;
}
// "[[1, 2], [3, 4]]", of more than `limit` values along an axis the first and last three.
std::string to_text(TensorView view, int64_t limit = 8);

}  // namespace bitnet
