#pragma once

#include "tensor/view.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

// How operations see strided values of any type: as blocks of a few computed types, in row-major order.
namespace bitnet {

// Values a block: what three blocks of doubles take stays in the first-level cache.
constexpr int64_t kBlockValues = 1024;

// What an operation computes in: F32, F16 and BF16 in float, F64 in double, U64 in uint64_t, other integers and BOOL
// in int64_t. fn(C()).
template <class Fn>
decltype(auto) visit_computed(DType type, Fn&& fn) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16: return fn(float());
    case DType::kF64: return fn(double());
    case DType::kU64: return fn(uint64_t());
    default: return fn(int64_t());
  }
}

// The runs of equal steps that row-major order makes of strides, as few as there can be.
class StridedWalk {
 public:
  StridedWalk(const Shape& shape, const std::vector<int64_t>& strides);

  int64_t offset() const { return offset_; }  // of the next value, in values
  int64_t stride() const { return strides_.back(); }
  int64_t left() const { return shape_.back() - at_.back(); }  // in this run
  void advance(int64_t n);                                     // n <= left()
  void restart();                                              // at the first value

 private:
  std::vector<int64_t> shape_, strides_, at_;
  int64_t offset_ = 0;
};

// n values of a type, `stride` apart from data on, to and from C.
template <class C>
using Gather = void (*)(const std::byte* data, int64_t stride, int64_t n, C* out);
template <class C>
using Scatter = void (*)(const C* values, int64_t n, int64_t stride, std::byte* data);
template <class C>
Gather<C> gather_of(DType type);
template <class C>
Scatter<C> scatter_to(DType type);

template <class C>
class ElementReader {
 public:
  explicit ElementReader(const TensorView& view)
      : walk_(view.shape(), view.strides()),
        gather_(gather_of<C>(view.dtype())),
        data_(view.data()),
        value_bytes_(dtype_info(view.dtype()).block_bytes),
        direct_(view.dtype() == dtype_of<C>()) {}

  // The next n values, in `scratch` or where they are.
  const C* read(int64_t n, C* scratch) {
    if (direct_ && walk_.stride() == 1 && walk_.left() >= n) {
      const std::byte* const here = data_ + walk_.offset() * value_bytes_;
      walk_.advance(n);
      return reinterpret_cast<const C*>(here);
    }
    for (C* out = scratch; n > 0;) {
      const int64_t run = std::min(n, walk_.left());
      gather_(data_ + walk_.offset() * value_bytes_, walk_.stride(), run, out);
      walk_.advance(run);
      out += run;
      n -= run;
    }
    return scratch;
  }
  // The first value again, or the first of another part of the same strides, `offset` values further on.
  void restart(int64_t offset, const TensorView& view) {
    walk_.restart();
    data_ = view.data() + offset * value_bytes_;
  }

 private:
  StridedWalk walk_;
  Gather<C> gather_;
  const std::byte* data_;
  int64_t value_bytes_;
  bool direct_;
};

template <class C>
class ElementWriter {
 public:
  // staged: results never go straight to their place, which an operation is still reading from.
  ElementWriter(const MutableTensorView& view, bool staged)
      : walk_(view.shape(), view.strides()),
        scatter_(scatter_to<C>(view.dtype())),
        data_(view.data()),
        value_bytes_(dtype_info(view.dtype()).block_bytes),
        direct_(view.dtype() == dtype_of<C>() && !staged) {}

  // Where the next n values are wanted: their place, or `scratch`. They are there after write() of the same.
  C* place(int64_t n, C* scratch) {
    if (!direct_ || walk_.stride() != 1 || walk_.left() < n) return scratch;
    return reinterpret_cast<C*>(data_ + walk_.offset() * value_bytes_);
  }
  void write(int64_t n, const C* values) {
    if (direct_ && reinterpret_cast<const std::byte*>(values) == data_ + walk_.offset() * value_bytes_) {
      walk_.advance(n);
      return;
    }
    while (n > 0) {
      const int64_t run = std::min(n, walk_.left());
      scatter_(values, run, walk_.stride(), data_ + walk_.offset() * value_bytes_);
      walk_.advance(run);
      values += run;
      n -= run;
    }
  }

 private:
  StridedWalk walk_;
  Scatter<C> scatter_;
  std::byte* data_;
  int64_t value_bytes_;
  bool direct_;
};

// Whether two views share memory: no, value by value, or otherwise, where one has to be copied before the other is
// written.
enum class Overlap : uint8_t { kNone, kSame, kOther };
Overlap overlap_of(const TensorView& a, const TensorView& b);

// Refuses packed types: "Q4_0 values are packed: ...".
Status check_elements(DType type);

}  // namespace bitnet
