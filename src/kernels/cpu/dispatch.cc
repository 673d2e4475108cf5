#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/cpu_features.h"

#include <cstdlib>
#include <string_view>

namespace bitnet {

CpuKernels with_matmul(const char* name, const CpuKernels& kernels, const MatmulKernels& matmul) {
  CpuKernels joined = kernels;
  joined.name = name;
  joined.matmul = matmul;
  return joined;
}

#if defined(__x86_64__)
static CpuKernels streamed(const CpuKernels& kernels, const StreamedKernels& to_second_level,
                           const CpuFeatures& features) {
  CpuKernels chosen = kernels;
  if (features.intel) {
    chosen.fields = to_second_level.fields;
    chosen.sketch = to_second_level.sketch;
  }
  return chosen;
}
#endif

std::vector<const CpuKernels*> usable_cpu_kernels() {
  std::vector<const CpuKernels*> usable;
  // Once: a virtual machine takes tens of microseconds to answer cpuid.
  [[maybe_unused]] static const CpuFeatures features = detect_cpu_features();
#if defined(__x86_64__)
  static const CpuKernels avx2 = streamed(kAvx2Kernels, kAvx2ToSecondLevel, features);
  static const CpuKernels avxvnni = streamed(kAvxVnniKernels, kAvxVnniToSecondLevel, features);
  static const CpuKernels avx512vnni = streamed(kAvx512VnniKernels, kAvx512VnniToSecondLevel, features);
  static const CpuKernels avx512vbmi = [] {
    CpuKernels kernels = avx512vnni;
    kernels.name = "avx512vbmi";
    kernels.digits = features.intel ? &kAvx512VbmiDigitsToSecondLevel : &kAvx512VbmiDigits;
    kernels.codecs = &kAvx512VbmiCodecs;
    return kernels;
  }();
  static const CpuKernels amx = with_matmul("amx", avx512vbmi, kAmxMatmul);
  if (features.amx_int8) usable.push_back(&amx);
  if (features.avx512_vbmi) usable.push_back(&avx512vbmi);
  if (features.avx512_vnni) usable.push_back(&avx512vnni);
  if (features.avx_vnni) usable.push_back(&avxvnni);
  if (features.avx2) usable.push_back(&avx2);
#elif defined(__aarch64__)
  if (features.neon_i8mm) usable.push_back(&kNeonI8mmKernels);
  if (features.neon_dotprod) usable.push_back(&kNeonDotprodKernels);
  usable.push_back(&kNeonKernels);
#endif
  usable.push_back(&kGenericKernels);
  return usable;
}

Result<const CpuKernels*> choose_cpu_kernels() {
  const std::vector<const CpuKernels*> usable = usable_cpu_kernels();
  const char* const forced = std::getenv("BITNET_CPU_ISA");
  if (forced == nullptr || *forced == '\0') return usable.front();
  std::string names;
  for (const CpuKernels* kernels : usable) {
    if (std::string_view(kernels->name) == forced) return kernels;
    names += names.empty() ? "" : ", ";
    names += kernels->name;
  }
  return unsupported("BITNET_CPU_ISA is \"{}\", which this machine or build cannot run; usable here: {}", forced,
                     names);
}

const TernaryCodecs& cpu_ternary_codecs() {
  static const TernaryCodecs& codecs = []() -> const TernaryCodecs& {
    const auto kernels = choose_cpu_kernels();
    return kernels ? *(*kernels)->codecs : kPlainTernaryCodecs;
  }();
  return codecs;
}

}  // namespace bitnet
