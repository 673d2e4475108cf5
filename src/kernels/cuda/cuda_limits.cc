#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_limits.h"

#include <algorithm>

// What the device can do, for `bitnet bench`.
namespace bitnet {
namespace {

constexpr size_t kSize_bytes = size_t{1} << 30;  // far more than a cache
constexpr int kRuns = 5;

// The least time of several, in seconds, after one that does not count.
template <class Launch>
Result<double> least_time(const Launch& launch) {
  cudaEvent_t events[2] = {};
  for (cudaEvent_t& event : events) BN_CUDA_RETURN_IF_ERROR(cudaEventCreate(&event), "making an event");
  float least = 0;
  cudaError_t error = cudaSuccess;
  for (int run = 0; run <= kRuns && error == cudaSuccess; ++run) {
    float milliseconds = 0;
    error = cudaEventRecord(events[0], nullptr);
    if (error == cudaSuccess) error = launch();
    if (error == cudaSuccess) error = cudaEventRecord(events[1], nullptr);
    if (error == cudaSuccess) error = cudaEventSynchronize(events[1]);
    if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, events[0], events[1]);
    if (run > 0) least = run == 1 ? milliseconds : std::min(least, milliseconds);
  }
  for (cudaEvent_t event : events) (void)cudaEventDestroy(event);
  BN_CUDA_RETURN_IF_ERROR(error, "measuring the device");
  return double(least) / 1e3;
}

}  // namespace

Result<DeviceLimits> CudaBackend::measure_limits() const {
  BN_ASSIGN_OR_RETURN(const Buffer memory, allocate_alone(kSize_bytes));
  DeviceLimits limits;
  BN_ASSIGN_OR_RETURN(const double read_s, least_time([&] {
                        return cuda::read_all(nullptr, memory.data(), kSize_bytes, n_multiprocessors_);
                      }));
  limits.read_gb_per_s = double(kSize_bytes) / read_s / 1e9;
  BN_ASSIGN_OR_RETURN(const double copy_s, least_time([&] {
                        return cudaMemcpyAsync(memory.data(), memory.data() + kSize_bytes / 2, kSize_bytes / 2,
                                               cudaMemcpyDeviceToDevice, nullptr);
                      }));
  limits.copy_gb_per_s = double(kSize_bytes) / copy_s / 1e9;
  double n_ops = 0;
  BN_ASSIGN_OR_RETURN(const double int8_s, least_time([&] {
                        return cuda::multiply_int8(nullptr, n_multiprocessors_, hopper_, memory.data(), n_ops);
                      }));
  limits.int8_gops_per_s = n_ops / int8_s / 1e9;
  return limits;
}

}  // namespace bitnet
