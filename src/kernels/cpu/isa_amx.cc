#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/avx512_intrinsics.inc.h"

// AMX tiles of int8 beside what isa_avx512vbmi.cc needs.
namespace bitnet {
namespace {

#include "kernels/cpu/amx_product.inc.h"

}  // namespace

const MatmulKernels kAmxMatmul = {kMatmulTokens, kMinTokens, pack_tokens, matmul_tile, kSketchMaxCode};

}  // namespace bitnet
