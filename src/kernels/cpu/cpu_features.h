#pragma once

namespace bitnet {

// What the processor can do and the operating system lets it (register state saved on a context switch). Own code:
// clang 14's __builtin_cpu_supports knows neither f16c nor avxvnni.
struct CpuFeatures {
  bool intel = false;
  bool avx2 = false;  // with f16c
  bool avx_vnni = false;
  bool avx512_vnni = false;  // with F, BW, VL and DQ
  bool avx512_vbmi = false;  // with all of these
  bool amx_int8 = false;     // with all of these; the process has asked for the tiles' state
  bool neon_dotprod = false;
  bool neon_i8mm = false;
};
CpuFeatures detect_cpu_features();

}  // namespace bitnet
