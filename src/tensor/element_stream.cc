#include "tensor/element_stream.h"

#include <bit>
#include <cmath>
#include <limits>
#include <utility>

namespace bitnet {
namespace {

// A float whose last bit tells that the double lies beside it, so that rounding once more rounds as from the double.
float narrow_to_odd(double v) {
  const float f = float(v);
  if (double(f) == v || std::isnan(v)) return f;
  uint32_t bits = std::bit_cast<uint32_t>(f);
  if (std::fabs(double(f)) > std::fabs(v)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

template <class To, class From>
To to_integer(From v) {
  if (std::isnan(v)) return To(0);
  // 2^bits or 2^(bits - 1), which floats have exactly; the largest integer they may not.
  constexpr From kEnd = From(std::numeric_limits<To>::max() / 2 + 1) * From(2);
  if (v >= kEnd) return std::numeric_limits<To>::max();
  if (v <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  return To(v);
}

template <class To, class From>
To convert(From v) {
  if constexpr (std::is_same_v<From, F16> || std::is_same_v<From, BF16>) {
    return convert<To>(to_float(v));
  } else if constexpr (std::is_same_v<To, bool>) {
    return v != From(0);
  } else if constexpr (std::is_same_v<To, F16> || std::is_same_v<To, BF16>) {
    float f;
    if constexpr (std::is_same_v<From, double>) {
      f = narrow_to_odd(v);
    } else if constexpr (sizeof(From) == 8) {
      f = narrow_to_odd(double(v));
    } else {
      f = float(v);
    }
    return To{std::is_same_v<To, F16> ? f32_to_f16(f) : f32_to_bf16(f)};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    return to_integer<To>(v);
  } else {
    return To(v);
  }
}

// BOOL may hold any byte; a bool may not.
template <class T>
using Stored = std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>;

template <class T, class C>
void gather(const std::byte* data, int64_t stride, int64_t n, C* out) {
  const auto* in = reinterpret_cast<const Stored<T>*>(data);
  const auto value = [](Stored<T> v) {
    if constexpr (std::is_same_v<T, bool>) return C(v != 0);
    return convert<C>(v);
  };
  if (stride == 1) {
    if constexpr (std::is_same_v<T, C>) {
      std::memcpy(out, in, size_t(n) * sizeof(T));
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = value(in[i]);
    }
  } else if (stride == 0) {
    std::fill_n(out, n, value(*in));
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = value(in[i * stride]);
  }
}

template <class T, class C>
void scatter(const C* values, int64_t n, int64_t stride, std::byte* data) {
  auto* out = reinterpret_cast<Stored<T>*>(data);
  if (stride == 1) {
    if constexpr (std::is_same_v<T, C>) {
      std::memcpy(out, values, size_t(n) * sizeof(T));
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = Stored<T>(convert<T>(values[i]));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) out[i * stride] = Stored<T>(convert<T>(values[i]));
  }
}

// The bytes from the first to the last value of a view.
std::pair<const std::byte*, const std::byte*> extent(const TensorView& view) {
  int64_t low = 0, high = 1;
  for (size_t i = 0; i < view.shape().size(); ++i) {
    if (view.shape()[i] == 0) return {view.data(), view.data()};
    const int64_t reach = (view.shape()[i] - 1) * view.strides()[i];
    (reach < 0 ? low : high) += reach;
  }
  const int64_t value_bytes = dtype_info(view.dtype()).block_bytes;
  return {view.data() + low * value_bytes, view.data() + high * value_bytes};
}

}  // namespace

StridedWalk::StridedWalk(const Shape& shape, const std::vector<int64_t>& strides) {
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;
    if (!shape_.empty() && strides_.back() == strides[i] * shape[i]) {
      shape_.back() *= shape[i];
      strides_.back() = strides[i];
    } else {
      shape_.push_back(shape[i]);
      strides_.push_back(strides[i]);
    }
  }
  if (shape_.empty()) {
    shape_ = {1};
    strides_ = {1};
  }
  at_.assign(shape_.size(), 0);
}

void StridedWalk::advance(int64_t n) {
  at_.back() += n;
  offset_ += n * strides_.back();
  for (size_t i = at_.size(); i-- > 0 && at_[i] == shape_[i];) {
    offset_ -= shape_[i] * strides_[i];
    at_[i] = 0;
    if (i == 0) return;
    ++at_[i - 1];
    offset_ += strides_[i - 1];
  }
}

void StridedWalk::restart() {
  std::fill(at_.begin(), at_.end(), 0);
  offset_ = 0;
}

template <class C>
Gather<C> gather_of(DType type) {
  return visit_element(type, [](auto element) -> Gather<C> { return gather<decltype(element), C>; });
}
template <class C>
Scatter<C> scatter_to(DType type) {
  return visit_element(type, [](auto element) -> Scatter<C> { return scatter<decltype(element), C>; });
}
template Gather<float> gather_of<float>(DType);
template Gather<double> gather_of<double>(DType);
template Gather<int64_t> gather_of<int64_t>(DType);
template Gather<uint64_t> gather_of<uint64_t>(DType);
template Scatter<float> scatter_to<float>(DType);
template Scatter<double> scatter_to<double>(DType);
template Scatter<int64_t> scatter_to<int64_t>(DType);
template Scatter<uint64_t> scatter_to<uint64_t>(DType);

Overlap overlap_of(const TensorView& a, const TensorView& b) {
  const auto [a_begin, a_end] = extent(a);
  const auto [b_begin, b_end] = extent(b);
  if (a_begin == a_end || b_begin == b_end || a_end <= b_begin || b_end <= a_begin) return Overlap::kNone;
  const bool same =
      a.data() == b.data() && a.shape() == b.shape() && a.strides() == b.strides() && a.dtype() == b.dtype();
  return same ? Overlap::kSame : Overlap::kOther;
}

Status check_elements(DType type) {
  if (is_element(type)) return ok();
  return unsupported("{} values are packed: decode them to F32 before computing with them", dtype_info(type).name);
}

}  // namespace bitnet
