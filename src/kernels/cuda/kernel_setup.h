#pragma once

#include <cuda_runtime.h>
#include <cstddef>

namespace bitnet::cuda {

// Before a launch of `function` with so much dynamic shared memory on the current device: all kernels of a step want
// the same split of a multiprocessor's memory, as changing it would make each wait until the one in front of it has
// left. Asks the driver only where a launch needs more than those before it. Thread-safe.
cudaError_t prepare_kernel(const void* function, size_t shared_bytes);

}  // namespace bitnet::cuda
