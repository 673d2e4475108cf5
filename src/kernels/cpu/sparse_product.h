#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/cpu_stream.h"

namespace bitnet {

// Products, by all threads, that leave out what contributes nothing; the same integers as with all of it. The tokens
// from `first_token` on

// with a kSomeRows matrix, the rows that `call` wants;
void multiply_rows(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                   int64_t first_token);
// with a kSomeColumns matrix, the columns whose input is not zero: each thread adds up those that it takes.
void multiply_columns(const CpuKernels& kernels, CpuStream& stream, const LinearCall& call, const QuantizedView& x,
                      int64_t first_token);

}  // namespace bitnet
