#include "kernels/cuda/cuda_device.h"

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_group.h"

#include <algorithm>
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

// "cuda", "cuda:N" or "cuda:N,M,...", each once.
Result<std::vector<int>> parse_device(std::string_view device) {
  std::vector<int> indices;
  const size_t colon = device.find(':');
  if (colon == std::string_view::npos) return std::vector<int>{0};
  for (std::string_view rest = device.substr(colon + 1);;) {
    int index = 0;
    const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), index);
    const size_t n_read = size_t(parsed.ptr - rest.data());
    if (parsed.ec != std::errc() || index < 0 || (n_read < rest.size() && rest[n_read] != ',')) {
      return invalid_argument(
          "device \"{}\": expected \"cuda\", \"cuda:N\", or several GPUs as \"cuda:N,M\", with numbers from 0 on",
          device);
    }
    if (std::find(indices.begin(), indices.end(), index) != indices.end()) {
      return invalid_argument("device \"{}\" names GPU {} twice", device, index);
    }
    indices.push_back(index);
    if (n_read == rest.size()) return indices;
    rest.remove_prefix(n_read + 1);
  }
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cuda_backend(std::string_view device) {
  BN_ASSIGN_OR_RETURN(const std::vector<int> indices, parse_device(device));
  BN_ASSIGN_OR_RETURN(const int n, count_devices());
  std::vector<std::unique_ptr<CudaBackend>> backends;
  for (const int index : indices) {
    if (index >= n) return invalid_argument("device \"{}\": there are {} CUDA devices, numbered from 0", device, n);
    cudaDeviceProp properties;
    BN_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, index), "asking for the device's properties");
    BN_RETURN_IF_ERROR(check_capability(properties, index));
    BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(index), "opening the device");
    backends.push_back(std::make_unique<CudaBackend>(index, properties));
  }
  if (backends.size() == 1) return std::unique_ptr<Backend>(std::move(backends[0]));
  return CudaGroup::create(device, indices, std::move(backends));
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
