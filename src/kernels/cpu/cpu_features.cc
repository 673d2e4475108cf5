#include "kernels/cpu/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#include <cstddef>
#endif

namespace bitnet {

#if defined(__x86_64__)

namespace {

struct CpuId {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};
CpuId cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuId r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}
bool bit(uint32_t word, int index) { return (word >> index & 1u) != 0; }

// XCR0: the register state that the operating system saves. By its bytes, as the instruction needs no compiler flag.
uint64_t enabled_state() {
  uint32_t low, high;
  asm volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

// Linux gives a process the 8 KiB of tiles only on request, which holds for all of its threads.
bool request_tiles() {
#if defined(__linux__)
  constexpr long kRequestStatePermission = 0x1023, kTileData = 18;  // asm/prctl.h: ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestStatePermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

// Bits as in the Intel Software Developer's Manual, volume 2, CPUID.
CpuFeatures detect_cpu_features() {
  CpuFeatures features;
  const CpuId vendor = cpuid(0, 0), basic = cpuid(1, 0);
  features.intel = vendor.ebx == 0x756e6547 && vendor.edx == 0x49656e69 && vendor.ecx == 0x6c65746e;  // "GenuineIntel"
  const bool osxsave = bit(basic.ecx, 27), avx = bit(basic.ecx, 28), f16c = bit(basic.ecx, 29);
  if (!osxsave || !avx) return features;
  const uint64_t state = enabled_state();
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6;
  const CpuId extended = cpuid(7, 0), extended1 = cpuid(7, 1);
  features.avx2 = ymm && f16c && bit(extended.ebx, 5);
  features.avx_vnni = features.avx2 && bit(extended1.eax, 4);
  const bool f = bit(extended.ebx, 16), dq = bit(extended.ebx, 17), bw = bit(extended.ebx, 30);
  const bool vl = bit(extended.ebx, 31), vnni = bit(extended.ecx, 11);
  features.avx512_vnni = features.avx2 && zmm && f && dq && bw && vl && vnni;
  features.avx512_vbmi = features.avx512_vnni && bit(extended.ecx, 1);
  const bool tiles = (state & 0x60000) == 0x60000, amx = bit(extended.edx, 24) && bit(extended.edx, 25);
  features.amx_int8 = features.avx512_vbmi && tiles && amx && request_tiles();
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

// Bits as in the kernel's uapi/asm/hwcap.h for arm64.
CpuFeatures detect_cpu_features() {
  CpuFeatures features;
  features.neon_dotprod = (getauxval(AT_HWCAP) >> 20 & 1u) != 0;                         // HWCAP_ASIMDDP
  features.neon_i8mm = features.neon_dotprod && (getauxval(AT_HWCAP2) >> 13 & 1u) != 0;  // HWCAP2_I8MM
  return features;
}

#elif defined(__APPLE__)

namespace {
bool sysctl_flag(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
}  // namespace

CpuFeatures detect_cpu_features() {
  CpuFeatures features;
  features.neon_dotprod = sysctl_flag("hw.optional.arm.FEAT_DotProd");
  features.neon_i8mm = features.neon_dotprod && sysctl_flag("hw.optional.arm.FEAT_I8MM");
  return features;
}

#else

CpuFeatures detect_cpu_features() { return {}; }

#endif

}  // namespace bitnet
