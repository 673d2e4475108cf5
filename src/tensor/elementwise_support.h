#pragma once

#include "tensor/element_stream.h"
#include "tensor/elementwise.h"

#include <cstdint>

namespace bitnet {

// Of a loop over a block: the operands never share memory with the result (ElementWriter stages it where they would).
#define BN_RESTRICT __restrict__

// A number in the type of the operand beside it where that has it exactly, else in I64 or F64.
Result<Tensor> number_beside(double value, DType other);

// Prepares operands of an operation that writes `out`: types have elements, shapes are out's, and none shares memory
// with it in another order (a copy then lies in `copies`).
template <int kOperands>
struct Operands {
  TensorView views[kOperands];
  Tensor copies[kOperands];
  bool staged = false;

  Status prepare(const MutableTensorView& out) {
    BN_RETURN_IF_ERROR(check_elements(out.dtype()));
    for (int i = 0; i < kOperands; ++i) {
      BN_RETURN_IF_ERROR(check_elements(views[i].dtype()));
      BN_ASSIGN_OR_RETURN(views[i], views[i].broadcast_to(out.shape()));
      const Overlap overlap = overlap_of(out, views[i]);
      staged |= overlap == Overlap::kSame;
      if (overlap != Overlap::kOther) continue;
      BN_ASSIGN_OR_RETURN(copies[i], Tensor::copy_of(views[i]));
      views[i] = copies[i].view();
    }
    return ok();
  }
};

// fn(a block of x, the place of its results, n) over all values.
template <class C, class Fn>
void for_blocks(const TensorView& x, const MutableTensorView& out, bool staged, const Fn& fn) {
  ElementReader<C> read_x(x);
  ElementWriter<C> writer(out, staged);
  alignas(64) C x_block[kBlockValues], out_block[kBlockValues];
  for (int64_t left = out.n_values(); left > 0;) {
    const int64_t n = std::min(left, kBlockValues);
    C* const place = writer.place(n, out_block);
    fn(read_x.read(n, x_block), place, n);
    writer.write(n, place);
    left -= n;
  }
}
template <class C, class Fn>
void for_blocks(const TensorView& a, const TensorView& b, const MutableTensorView& out, bool staged, const Fn& fn) {
  ElementReader<C> read_a(a), read_b(b);
  ElementWriter<C> writer(out, staged);
  alignas(64) C a_block[kBlockValues], b_block[kBlockValues], out_block[kBlockValues];
  for (int64_t left = out.n_values(); left > 0;) {
    const int64_t n = std::min(left, kBlockValues);
    C* const place = writer.place(n, out_block);
    fn(read_a.read(n, a_block), read_b.read(n, b_block), place, n);
    writer.write(n, place);
    left -= n;
  }
}

}  // namespace bitnet
