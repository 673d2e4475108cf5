#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/cpu_stream.h"

namespace bitnet {

// A token's codes [stride] in the order in which rows of `row_bytes` meet them, zeros behind: out [n_fields *
// row_bytes].
void spread_token(const int8_t* q, int64_t stride, Packing packing, int64_t row_bytes, int8_t* out);

// Products of one token, by all threads, that leave out what contributes nothing; the same integers as with all of it.

// With a kSomeRows matrix: the rows that `call` wants.
void multiply_rows(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                   int64_t token);
// With a kSomeColumns matrix: the columns whose input is not zero, each thread adding up those that it takes.
void multiply_columns(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                      int64_t token);

}  // namespace bitnet
