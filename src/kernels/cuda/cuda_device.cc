#include "kernels/cuda/cuda_device.h"

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_error.h"

#include <charconv>

namespace bitnet {
namespace {

constexpr int kLeastCapability = 8;

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

Result<int> count_devices() {
  int n = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaSuccess && n > 0) return n;
  (void)cudaGetLastError();
  (void)cudaDriverGetVersion(&driver);
  if (driver == 0) {
    return unsupported(
        "no CUDA device: this machine has no NVIDIA driver (libcuda.so.1 was not found); this build "
        "wants one for CUDA {}",
        version(CUDART_VERSION));
  }
  if (error == cudaErrorInsufficientDriver) {
    return unsupported("no CUDA device: the NVIDIA driver supports CUDA {}, this build wants {}", version(driver),
                       version(CUDART_VERSION));
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) {
    return unsupported("no CUDA device: the NVIDIA driver is there, but it shows no GPU");
  }
  return unsupported("no CUDA device: {}", cudaGetErrorString(error));
}

Status check_capability(const cudaDeviceProp& properties, int index) {
  if (properties.major >= kLeastCapability) return ok();
  return unsupported("cuda:{} is a {} of compute capability {}.{}, expected 8.0 or more", index, properties.name,
                     properties.major, properties.minor);
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cuda_backend(std::string_view device) {
  int index = 0;
  if (const size_t colon = device.find(':'); colon != std::string_view::npos) {
    const std::string_view digits = device.substr(colon + 1);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || index < 0) {
      return invalid_argument("device \"{}\": expected \"cuda\" or \"cuda:N\" with N from 0 on", device);
    }
  }
  BN_ASSIGN_OR_RETURN(const int n, count_devices());
  if (index >= n) return invalid_argument("device \"{}\": there are {} CUDA devices, numbered from 0", device, n);
  cudaDeviceProp properties;
  BN_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, index), "asking for the device's properties");
  BN_RETURN_IF_ERROR(check_capability(properties, index));
  BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(index), "opening the device");
  return std::unique_ptr<Backend>(std::make_unique<CudaBackend>(index, properties));
}

std::vector<DeviceInfo> list_cuda_devices() {
  std::vector<DeviceInfo> devices;
  const Result<int> n = count_devices();
  for (int i = 0; n && i < *n; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess || !check_capability(properties, i)) continue;
    const CudaBackend backend(i, properties);
    DeviceInfo info;
    info.device = fmt::format("cuda:{}", i);
    info.description = fmt::format("{}, {} multiprocessors, {:.1f} GiB", properties.name,
                                   properties.multiProcessorCount, double(properties.totalGlobalMem) * 0x1p-30);
    info.kernels = {std::string(backend.kernels())};
    info.chosen = backend.kernels();
    devices.push_back(std::move(info));
  }
  return devices;
}

}  // namespace bitnet
