#include "tensor/view.h"

#include <algorithm>
#include <utility>

namespace bitnet {
namespace {

// Strides of `to` over the same values, or nothing where one axis of `to` would have to take steps of two sizes.
std::optional<std::vector<int64_t>> reshaped_strides(const Shape& from, const std::vector<int64_t>& strides,
                                                     const Shape& to) {
  std::vector<int64_t> out(to.size(), 1);
  size_t i = from.size(), j = to.size();
  while (true) {
    while (i > 0 && from[i - 1] == 1) --i;
    while (j > 0 && to[j - 1] == 1) --j;
    if (i == 0 || j == 0) return out;
    // The fewest axes of each from here outwards that have equally many values.
    const size_t first = i - 1;
    int64_t n_from = from[--i], n_to = to[j - 1];
    out[--j] = strides[first];
    while (n_from != n_to) {
      if (n_from < n_to) {
        if (from[i - 1] != 1 && strides[i - 1] != strides[first] * n_from) return std::nullopt;
        n_from *= from[--i];
      } else {
        out[j - 1] = strides[first] * n_to;
        n_to *= to[--j];
      }
    }
  }
}

}  // namespace

std::vector<int64_t> contiguous_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  return strides;
}

Result<int64_t> checked_axis(int64_t axis, const Shape& shape) {
  const int64_t rank = int64_t(shape.size());
  if (axis < -rank || axis >= rank) {
    return invalid_argument("axis {} of a tensor of shape {} with {} axes", axis, shape_string(shape), rank);
  }
  return axis < 0 ? axis + rank : axis;
}

Result<Shape> broadcast_shapes(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()));
  for (size_t i = 0; i < out.size(); ++i) {  // from the last axis
    const int64_t from_a = i < a.size() ? a[a.size() - 1 - i] : 1, from_b = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (from_a != from_b && from_a != 1 && from_b != 1) {
      return invalid_argument("cannot broadcast {} with {}", shape_string(a), shape_string(b));
    }
    out[out.size() - 1 - i] = from_a == 1 ? from_b : from_a;
  }
  return out;
}

template <class Byte>
BasicTensorView<Byte>::BasicTensorView(DType dtype, Shape shape, Strides strides, Byte* data)
    : dtype_(dtype), shape_(std::move(shape)), strides_(std::move(strides)), data_(data) {}

template <class Byte>
Status BasicTensorView<Byte>::check_count(uint64_t n_values, const Shape& shape) {
  if (element_count(shape) == n_values) return ok();
  return invalid_argument("{} values for the shape {}", n_values, shape_string(shape));
}

template <class Byte>
BasicTensorView<Byte> BasicTensorView<Byte>::contiguous_view(DType dtype, Shape shape, Byte* data) {
  Strides strides = contiguous_strides(shape);
  return BasicTensorView(dtype, std::move(shape), std::move(strides), data);
}

template <class Byte>
int64_t BasicTensorView<Byte>::n_values() const {
  int64_t n = 1;
  for (const int64_t dim : shape_) n *= dim;
  return n;
}

template <class Byte>
bool BasicTensorView<Byte>::contiguous() const {
  int64_t expected = 1;
  for (size_t i = shape_.size(); i-- > 0;) {
    if (shape_[i] == 0) return true;
    if (shape_[i] != 1 && strides_[i] != expected) return false;
    expected *= shape_[i];
  }
  return true;
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::slice(int64_t axis, const Range& range) const {
  BN_ASSIGN_OR_RETURN(axis, checked_axis(axis, shape_));
  if (range.step == 0) return invalid_argument("a slice of {} with step 0", shape_string(shape_));
  const size_t a = size_t(axis);
  const int64_t n = shape_[a], step = range.step;
  // Where a walk may start and end: a position outside is moved to the nearest of these.
  const int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? n : n - 1;
  const auto position = [&](const std::optional<int64_t>& given, int64_t otherwise) {
    if (!given) return otherwise;
    return std::clamp(*given < 0 ? std::max(*given, -n - 1) + n : *given, lowest, highest);
  };
  const int64_t begin = position(range.begin, step > 0 ? 0 : n - 1), end = position(range.end, step > 0 ? n : -1);
  const int64_t distance = step > 0 ? end - begin : begin - end;
  const uint64_t stride = step > 0 ? uint64_t(step) : 0 - uint64_t(step);
  BasicTensorView out = *this;
  out.shape_[a] = distance <= 0 ? 0 : int64_t((uint64_t(distance) - 1) / stride + 1);
  if (out.shape_[a] > 0) out.data_ += begin * strides_[a] * dtype_info(dtype_).block_bytes;
  // A step longer than the axis is never taken.
  out.strides_[a] = out.shape_[a] > 1 ? strides_[a] * step : strides_[a];
  return out;
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::select(int64_t axis, int64_t index) const {
  BN_ASSIGN_OR_RETURN(axis, checked_axis(axis, shape_));
  const size_t a = size_t(axis);
  if (index < -shape_[a] || index >= shape_[a]) {
    return invalid_argument("index {} on axis {} of a tensor of shape {}", index, axis, shape_string(shape_));
  }
  BasicTensorView out = *this;
  out.data_ += (index < 0 ? index + shape_[a] : index) * strides_[a] * dtype_info(dtype_).block_bytes;
  out.shape_.erase(out.shape_.begin() + axis);
  out.strides_.erase(out.strides_.begin() + axis);
  return out;
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::reshape(Shape shape) const {
  const Shape wanted = shape;
  const auto unknown = std::find(shape.begin(), shape.end(), -1);
  if (unknown != shape.end()) {
    *unknown = 1;
    const auto others = element_count(shape);
    if (others && *others > 0 && n_values() % int64_t(*others) == 0) *unknown = n_values() / int64_t(*others);
    if (others == 0u) *unknown = -1;
  }
  if (element_count(shape) != uint64_t(n_values())) {
    return invalid_argument("cannot reshape {} to {}: {} values", shape_string(shape_), shape_string(wanted),
                            n_values());
  }
  if (n_values() == 0) return contiguous_view(dtype_, std::move(shape), data_);
  auto strides = reshaped_strides(shape_, strides_, shape);
  if (!strides) {
    return invalid_argument("cannot see values of shape {} with strides {} as {} without a copy", shape_string(shape_),
                            shape_string(strides_), shape_string(shape));
  }
  return BasicTensorView(dtype_, std::move(shape), *std::move(strides), data_);
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::permute(std::span<const int64_t> axes) const {
  const Error wrong = invalid_argument("axes {} are not those of a tensor of shape {} in another order",
                                       shape_string({axes.begin(), axes.end()}), shape_string(shape_));
  if (int64_t(axes.size()) != rank()) return wrong;
  BasicTensorView out = *this;
  std::vector<bool> seen(axes.size(), false);
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = checked_axis(axes[i], shape_);
    if (!axis || seen[size_t(*axis)]) return wrong;
    seen[size_t(*axis)] = true;
    out.shape_[i] = shape_[size_t(*axis)];
    out.strides_[i] = strides_[size_t(*axis)];
  }
  return out;
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::transpose(int64_t a, int64_t b) const {
  BN_ASSIGN_OR_RETURN(a, checked_axis(a, shape_));
  BN_ASSIGN_OR_RETURN(b, checked_axis(b, shape_));
  BasicTensorView out = *this;
  std::swap(out.shape_[size_t(a)], out.shape_[size_t(b)]);
  std::swap(out.strides_[size_t(a)], out.strides_[size_t(b)]);
  return out;
}

template <class Byte>
BasicTensorView<Byte> BasicTensorView<Byte>::squeeze() const {
  BasicTensorView out(dtype_, {}, {}, data_);
  for (size_t i = 0; i < shape_.size(); ++i) {
    if (shape_[i] == 1) continue;
    out.shape_.push_back(shape_[i]);
    out.strides_.push_back(strides_[i]);
  }
  return out;
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::squeeze(int64_t axis) const {
  BN_ASSIGN_OR_RETURN(axis, checked_axis(axis, shape_));
  if (shape_[size_t(axis)] != 1) {
    return invalid_argument("cannot squeeze axis {} of a tensor of shape {}: its length is not 1", axis,
                            shape_string(shape_));
  }
  return select(axis, 0);
}

template <class Byte>
Result<BasicTensorView<Byte>> BasicTensorView<Byte>::unsqueeze(int64_t axis) const {
  if (axis < -rank() - 1 || axis > rank()) {
    return invalid_argument("cannot put an axis at {} into a tensor of shape {}", axis, shape_string(shape_));
  }
  if (axis < 0) axis += rank() + 1;
  BasicTensorView out = *this;
  out.shape_.insert(out.shape_.begin() + axis, 1);
  out.strides_.insert(out.strides_.begin() + axis, 1);
  return out;
}

template <class Byte>
Result<TensorView> BasicTensorView<Byte>::broadcast_to(const Shape& shape) const {
  const auto both = broadcast_shapes(shape_, shape);
  if (!both || *both != shape) {
    return invalid_argument("cannot broadcast {} to {}", shape_string(shape_), shape_string(shape));
  }
  Strides strides(shape.size(), 0);
  const size_t in_front = shape.size() - shape_.size();
  for (size_t i = 0; i < shape_.size(); ++i) {
    if (shape_[i] == shape[in_front + i]) strides[in_front + i] = strides_[i];
  }
  return TensorView(dtype_, shape, std::move(strides), data_);
}

template <class Byte>
Error BasicTensorView<Byte>::values_error(DType wanted) const {
  if (dtype_ != wanted) {
    return invalid_argument("a tensor {} of {} read as {}", shape_string(shape_), dtype_info(dtype_).name,
                            dtype_info(wanted).name);
  }
  return invalid_argument("values of shape {} with strides {} are not contiguous", shape_string(shape_),
                          shape_string(strides_));
}

template class BasicTensorView<const std::byte>;
template class BasicTensorView<std::byte>;

}  // namespace bitnet
