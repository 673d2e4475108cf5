#pragma once

#include "tensor/element.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace bitnet {

// Part of an axis, as Python's begin:end:step: negative positions count from the end, what lies outside is cut off, and
// a negative step walks backwards (from the last value down where begin and end are left out).
struct Range {
  std::optional<int64_t> begin = {};
  std::optional<int64_t> end = {};
  int64_t step = 1;
};

// Values somewhere in memory, seen as an array: the value at (i, j, ...) is data[i * strides[0] + j * strides[1] +
// ...]. Never owns; whoever does must outlive it. Strides are in values, may be negative, and are zero along an axis
// that repeats. Only types of single elements have views (is_element()), packed ones do not.
//
// All functions that give another view of the same values copy nothing and take negative axes, which count from the
// last. Cheap to copy; const and thread-safe as far as nobody writes the values.
template <class Byte>
class BasicTensorView {
 public:
  using Strides = std::vector<int64_t>;

  BasicTensorView() = default;  // no values: F32 [0]
  // Trusts its arguments; TensorView::of() below checks.
  BasicTensorView(DType dtype, Shape shape, Strides strides, Byte* data);
  // What may be written may be read.
  template <class Other>
  requires(std::is_same_v<const Other, Byte> && !std::is_same_v<Other, Byte>)
      BasicTensorView(const BasicTensorView<Other>& other)
      : BasicTensorView(other.dtype(), other.shape(), other.strides(), other.data()) {}

  // Row-major values; refused when there are not as many as the shape has.
  template <class T>
  static Result<BasicTensorView> of(std::span<T> values, Shape shape) {
    BN_RETURN_IF_ERROR(check_count(values.size(), shape));
    return contiguous_view(dtype_of<std::remove_const_t<T>>(), std::move(shape), as_bytes(values.data()));
  }
  template <class T>
  static BasicTensorView of(std::span<T> values) {
    return contiguous_view(dtype_of<std::remove_const_t<T>>(), {int64_t(values.size())}, as_bytes(values.data()));
  }

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  const Strides& strides() const { return strides_; }
  Byte* data() const { return data_; }
  int64_t rank() const { return int64_t(shape_.size()); }
  int64_t n_values() const;
  bool contiguous() const;  // row-major without gaps

  Result<BasicTensorView> slice(int64_t axis, const Range& range) const;
  Result<BasicTensorView> select(int64_t axis, int64_t index) const;  // drops the axis
  // One length may be -1: what remains. Refused where the strides would need a copy (contiguous_copy() makes one).
  Result<BasicTensorView> reshape(Shape shape) const;
  Result<BasicTensorView> permute(std::span<const int64_t> axes) const;  // axis i of the result is axes[i] of this
  Result<BasicTensorView> permute(std::initializer_list<int64_t> axes) const {
    return permute(std::span(axes.begin(), axes.size()));
  }
  Result<BasicTensorView> transpose(int64_t a = -2, int64_t b = -1) const;  // two axes exchanged
  BasicTensorView squeeze() const;                                          // without the axes of length 1
  Result<BasicTensorView> squeeze(int64_t axis) const;
  Result<BasicTensorView> unsqueeze(int64_t axis) const;  // a new axis of length 1 before `axis`; -1: at the end
  // NumPy's rule: missing axes in front and axes of length 1 repeat.
  Result<BasicTensorView<const std::byte>> broadcast_to(const Shape& shape) const;

  // The values in order, where they are contiguous and of this type; else the error says what they are.
  template <class T>
  auto values() const {
    using Value = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    using Values = std::span<Value>;
    if (dtype_ != dtype_of<T>() || !contiguous()) return Result<Values>(values_error(dtype_of<T>()));
    return Result<Values>(Values(reinterpret_cast<Value*>(data_), size_t(n_values())));
  }

 private:
  template <class T>
  static Byte* as_bytes(T* values) {
    return reinterpret_cast<Byte*>(values);
  }
  static Status check_count(uint64_t n_values, const Shape& shape);
  static BasicTensorView contiguous_view(DType dtype, Shape shape, Byte* data);
  Error values_error(DType wanted) const;

  DType dtype_ = DType::kF32;
  Shape shape_ = {0};
  Strides strides_ = {1};
  Byte* data_ = nullptr;
};

using TensorView = BasicTensorView<const std::byte>;
using MutableTensorView = BasicTensorView<std::byte>;
extern template class BasicTensorView<const std::byte>;
extern template class BasicTensorView<std::byte>;

// Strides of row-major values without gaps.
std::vector<int64_t> contiguous_strides(const Shape& shape);

// 0 to rank - 1 for an axis from -rank to rank - 1.
Result<int64_t> checked_axis(int64_t axis, const Shape& shape);

// The shape that both repeat to, or "cannot broadcast [2, 3] with [4]".
Result<Shape> broadcast_shapes(const Shape& a, const Shape& b);

}  // namespace bitnet
