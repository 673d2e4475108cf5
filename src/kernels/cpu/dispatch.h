#pragma once

#include "base/result.h"
#include "kernels/cpu/kernel_table.h"

#include <string>
#include <vector>

namespace bitnet {

// The tables that this machine can run, best first; `generic` is always there and last.
std::vector<const CpuKernels*> usable_cpu_kernels();

// A copy of a table, under another name, with other products of several tokens.
CpuKernels with_matmul(const char* name, const CpuKernels& kernels, const MatmulKernels& matmul);

// The best one, or the one that the environment variable BITNET_CPU_ISA names. A name that cannot run here is an error,
// never a silent fall back: a test that forces an instruction set must run it.
Result<const CpuKernels*> choose_cpu_kernels();

// The loops of packed layouts (quant/ternary.h) of that table as it was chosen first; the plain ones where the choice
// is an error, which whoever makes a back end reports.
const TernaryCodecs& cpu_ternary_codecs();

}  // namespace bitnet
