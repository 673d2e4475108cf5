#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/fused_model.h"
#include "kernels/reference/reference_backend.h"
#if BITNET_CUDA
#include "kernels/cuda/cuda_device.h"
#endif

#include <unistd.h>
#include <cstring>
#include <fstream>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace bitnet {
namespace {

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string_view::npos ? "" : std::string(text.substr(begin, end - begin + 1));
}

// As the operating system names it; ARM's Linux gives no name.
std::string processor_name() {
#if defined(__APPLE__)
  char name[256] = {};
  size_t size = sizeof name - 1;
  if (sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0 && name[0] != '\0') return name;
#else
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || trimmed(line.substr(0, colon)) != "model name") continue;
    const std::string name = trimmed(std::string_view(line).substr(colon + 1));
    if (!name.empty()) return name;
  }
#endif
#if defined(__x86_64__)
  return "x86-64 processor";
#elif defined(__aarch64__)
  return "ARM64 processor";
#else
  return "processor";
#endif
}

std::string processor_description() {
  const int n_threads = available_cpus();
  std::string text = fmt::format("{}, {} thread{}", processor_name(), n_threads, n_threads == 1 ? "" : "s");
  const long n_pages = ::sysconf(_SC_PHYS_PAGES), page_bytes = ::sysconf(_SC_PAGESIZE);
  if (n_pages > 0 && page_bytes > 0)
    text += fmt::format(", {:.1f} GiB", double(n_pages) * double(page_bytes) * 0x1p-30);
  return text;
}

}  // namespace

Status Backend::upload(std::span<const std::byte> from, void* to) const {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
  return ok();
}

Status Backend::fetch(Stream& stream, const void* from, std::span<std::byte> to) const {
  BN_RETURN_IF_ERROR(wait(stream));
  if (!to.empty()) std::memcpy(to.data(), from, to.size());
  return ok();
}

Status Backend::check_kv(DType dtype, int64_t head_dim) const {
  const DTypeInfo& info = dtype_info(dtype);
  const bool tiled = dtype == DType::kI8 || dtype == DType::kI4;
  const int64_t multiple = tiled ? kTileDims : info.block_size;
  if (head_dim % multiple != 0 || (tiled && head_dim > kMaxTileDims)) {
    return invalid_argument(
        "a {} key/value cache wants heads of a multiple of {} dimensions{}, this model's have {}; "
        "use f16 instead",
        info.name, multiple, tiled ? fmt::format(", at most {}", kMaxTileDims) : "", head_dim);
  }
  return ok();
}

Result<Buffer> Backend::allocate_cache(const KvLayer&, int64_t n_layers, size_t plane_bytes) const {
  return allocate(2 * size_t(n_layers) * plane_bytes);
}

Result<std::unique_ptr<FusedModel>> Backend::fuse(const ModelGraph&) const { return std::unique_ptr<FusedModel>(); }

Result<std::unique_ptr<Backend>> make_backend(std::string_view device) {
  if (device == "reference") return std::unique_ptr<Backend>(std::make_unique<ReferenceBackend>());
  if (device == "cpu") {
    BN_ASSIGN_OR_RETURN(const CpuKernels* const kernels, choose_cpu_kernels());
    return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(*kernels));
  }
#if BITNET_CUDA
  if (device == "cuda" || device.starts_with("cuda:")) return make_cuda_backend(device);
  constexpr std::string_view kDevices = "cpu, reference, cuda";
#else
  constexpr std::string_view kDevices = "cpu, reference";
#endif
  return unsupported("there is no device \"{}\" in this build; it has: {}", device, kDevices);
}

Result<std::vector<DeviceInfo>> list_devices() {
  BN_ASSIGN_OR_RETURN(const CpuKernels* const chosen, choose_cpu_kernels());
  DeviceInfo cpu;
  cpu.device = "cpu";
  cpu.description = processor_description();
  for (const CpuKernels* kernels : usable_cpu_kernels()) cpu.kernels.emplace_back(kernels->name);
  cpu.chosen = chosen->name;
  DeviceInfo reference;
  reference.device = "reference";
  reference.description = "plain loops on one thread, the specification of the arithmetic";
  reference.kernels = {"scalar"};
  reference.chosen = "scalar";
  std::vector<DeviceInfo> devices;
  devices.push_back(std::move(cpu));
  devices.push_back(std::move(reference));
#if BITNET_CUDA
  for (DeviceInfo& cuda : list_cuda_devices()) devices.push_back(std::move(cuda));
#endif
  return devices;
}

}  // namespace bitnet
