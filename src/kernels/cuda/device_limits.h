#pragma once

#include <cuda_runtime.h>
#include <cstddef>

// Kernels that do nothing but what the device is to be measured in.
namespace bitnet::cuda {

// Reads n_bytes, a multiple of 16.
cudaError_t read_all(cudaStream_t stream, const void* from, size_t n_bytes, int n_multiprocessors);
// Multiplies on tensor cores, from registers and shared memory as fast as it goes; `sink` is never written. Operations
// that it does, each multiplication and each addition counted.
cudaError_t multiply_int8(cudaStream_t stream, int n_multiprocessors, bool hopper, void* sink, double& n_ops);

}  // namespace bitnet::cuda
