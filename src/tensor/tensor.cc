#include "tensor/tensor.h"

#include "base/rng.h"
#include "tensor/element_stream.h"
#include "tensor/elementwise.h"

#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

// value(i) for each value in order, as doubles.
template <class Value>
Result<Tensor> generated(DType dtype, Shape shape, const Value& value) {
  BN_RETURN_IF_ERROR(check_elements(dtype));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(dtype, std::move(shape)));
  ElementWriter<double> writer(out.mutable_view(), false);
  double block[kBlockValues];
  const int64_t n = out.n_values();
  for (int64_t i = 0; i < n; i += kBlockValues) {
    const int64_t count = std::min(kBlockValues, n - i);
    for (int64_t k = 0; k < count; ++k) block[k] = value(i + k);
    writer.write(count, block);
  }
  return out;
}

template <class C>
void copy_values(const MutableTensorView& out, const TensorView& from) {
  ElementReader<C> reader(from);
  ElementWriter<C> writer(out, false);
  C block[kBlockValues];
  for (int64_t left = out.n_values(); left > 0;) {
    const int64_t n = std::min(left, kBlockValues);
    writer.write(n, reader.read(n, block));
    left -= n;
  }
}

void append_text(const TensorView& view, int64_t limit, std::string& out) {
  if (view.rank() == 0) {
    const double value = *item(view);
    out += view.dtype() == DType::kBool ? (value != 0 ? "true" : "false") : fmt::format("{:.6g}", value);
    return;
  }
  out += '[';
  const int64_t n = view.shape()[0];
  for (int64_t i = 0; i < n; ++i) {
    if (i > 0) out += ", ";
    if (n > limit && i == 3) {
      out += "..., ";
      i = n - 3;
    }
    append_text(*view.select(0, i), limit, out);
  }
  out += ']';
}

}  // namespace

Result<Tensor> Tensor::zeros(DType dtype, Shape shape) {
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, tensor_bytes(dtype, shape));
  BN_ASSIGN_OR_RETURN(Buffer buffer, Buffer::allocate(size_t(size_bytes)));
  return Tensor(dtype, std::move(shape), std::move(buffer));
}

Result<Tensor> Tensor::full(DType dtype, Shape shape, double value) {
  return generated(dtype, std::move(shape), [value](int64_t) { return value; });
}

Result<Tensor> Tensor::arange(DType dtype, double begin, double end, double step) {
  const double n = std::ceil((end - begin) / step);
  if (!std::isfinite(n) || n > 0x1p62) {
    return invalid_argument("a range from {} to {} in steps of {} has no end", begin, end, step);
  }
  return generated(dtype, {n > 0 ? int64_t(n) : 0}, [=](int64_t i) { return begin + double(i) * step; });
}

Result<Tensor> Tensor::identity(DType dtype, int64_t n) {
  return generated(dtype, {n, n}, [n](int64_t i) { return i / n == i % n ? 1.0 : 0.0; });
}

Result<Tensor> Tensor::uniform(DType dtype, Shape shape, uint64_t seed, uint64_t stream) {
  const CounterRng rng(seed, stream);
  return generated(dtype, std::move(shape), [&rng](int64_t i) { return rng.uniform(uint64_t(i)); });
}

Result<Tensor> Tensor::normal(DType dtype, Shape shape, uint64_t seed, uint64_t stream) {
  const CounterRng rng(seed, stream);
  return generated(dtype, std::move(shape), [&rng](int64_t i) { return rng.normal(uint64_t(i)); });
}

Result<Tensor> Tensor::copy_of(TensorView view) {
  if (!is_element(view.dtype())) {  // a tensor's own view: packed types have no others
    BN_ASSIGN_OR_RETURN(Tensor out, zeros(view.dtype(), view.shape()));
    if (!out.bytes().empty()) std::memcpy(out.bytes().data(), view.data(), out.bytes().size());
    return out;
  }
  return cast(view, view.dtype());
}

Result<Tensor> Tensor::reshaped(Shape shape) && {
  BN_ASSIGN_OR_RETURN(const TensorView seen, view().reshape(std::move(shape)));
  shape_ = seen.shape();
  return std::move(*this);
}

Status assign(MutableTensorView out, TensorView from) {
  BN_RETURN_IF_ERROR(check_elements(out.dtype()));
  BN_RETURN_IF_ERROR(check_elements(from.dtype()));
  BN_ASSIGN_OR_RETURN(from, from.broadcast_to(out.shape()));
  Tensor copy;
  if (overlap_of(out, from) == Overlap::kOther) {
    BN_ASSIGN_OR_RETURN(copy, Tensor::copy_of(from));
    from = copy.view();
  }
  // The type that is read decides, so that nothing is rounded twice.
  visit_computed(from.dtype(), [&](auto computed) { copy_values<decltype(computed)>(out, from); });
  return ok();
}

Result<Tensor> cast(TensorView from, DType dtype) {
  BN_RETURN_IF_ERROR(check_elements(dtype));
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(dtype, from.shape()));
  BN_RETURN_IF_ERROR(assign(out.mutable_view(), from));
  return out;
}

Result<Tensor> concatenate(std::span<const TensorView> parts, int64_t axis) {
  if (parts.empty()) return invalid_argument("nothing to concatenate");
  Shape shape = parts[0].shape();
  DType dtype = parts[0].dtype();
  BN_ASSIGN_OR_RETURN(axis, checked_axis(axis, shape));
  for (const TensorView& part : parts.subspan(1)) {
    Shape as_first = part.shape();
    if (as_first.size() == shape.size()) as_first[size_t(axis)] = parts[0].shape()[size_t(axis)];
    if (as_first != parts[0].shape()) {
      return invalid_argument("cannot concatenate {} with {} along axis {}", shape_string(parts[0].shape()),
                              shape_string(part.shape()), axis);
    }
    shape[size_t(axis)] += part.shape()[size_t(axis)];
    BN_ASSIGN_OR_RETURN(dtype, promote(dtype, part.dtype()));
  }
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(dtype, shape));
  int64_t at = 0;
  for (const TensorView& part : parts) {
    const int64_t end = at + part.shape()[size_t(axis)];
    BN_ASSIGN_OR_RETURN(const MutableTensorView place, out.mutable_view().slice(axis, {at, end}));
    BN_RETURN_IF_ERROR(assign(place, part));
    at = end;
  }
  return out;
}

Result<double> item(TensorView view) {
  if (view.n_values() != 1) {
    return invalid_argument("a tensor of shape {} is not one value", shape_string(view.shape()));
  }
  BN_RETURN_IF_ERROR(check_elements(view.dtype()));
  double value = 0;
  gather_of<double>(view.dtype())(view.data(), 1, 1, &value);
  return value;
}

std::string to_text(TensorView view, int64_t limit) {
  if (!is_element(view.dtype())) {
    return fmt::format("{} {}", dtype_info(view.dtype()).name, shape_string(view.shape()));
  }
  std::string out;
  append_text(view, std::max<int64_t>(limit, 6), out);
  return out;
}

}  // namespace bitnet
