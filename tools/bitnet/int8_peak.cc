#include "int8_peak.h"

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace bitnet::cli {
namespace {

constexpr int64_t kRounds = 1 << 20;
constexpr int kChains = 12;  // independent sums: enough to hide an instruction's latency

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) double dot_avx512vnni() {
  __m512i sums[kChains];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  for (int64_t i = 0; i < kRounds; ++i) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbusd_epi32(sums[c], a, b);
  }
  for (auto& sum : sums) asm volatile("" : "+v"(sum));
  return double(kRounds) * kChains * 64 * 2;
}

__attribute__((target("avx2,avxvnni"))) double dot_avxvnni() {
  __m256i sums[kChains];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2);
  for (int64_t i = 0; i < kRounds; ++i) {
    asm volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm256_dpbusd_avx_epi32(sums[c], a, b);
  }
  for (auto& sum : sums) asm volatile("" : "+x"(sum));
  return double(kRounds) * kChains * 32 * 2;
}

__attribute__((target("avx2"))) double dot_avx2() {
  __m256i sums[kChains];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(a), "+x"(b));  // each product anew
      sums[c] = _mm256_add_epi16(sums[c], _mm256_maddubs_epi16(a, b));
    }
  }
  for (auto& sum : sums) asm volatile("" : "+x"(sum));
  return double(kRounds) * kChains * 32 * 2;
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
double dot_neon() {
  int32x4_t sums[kChains];
  for (auto& sum : sums) sum = vdupq_n_s32(0);
  int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8(2);
  for (int64_t i = 0; i < kRounds; ++i) {
    asm volatile("" : "+w"(a), "+w"(b));
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = vdotq_s32(sums[c], a, b);
  }
  for (auto& sum : sums) asm volatile("" : "+w"(sum));
  return double(kRounds) * kChains * 16 * 2;
}
#endif

}  // namespace

double int8_peak_ops() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return dot_avx512vnni();
  }
  // CPUID leaf 7, subleaf 1, EAX bit 4; __builtin_cpu_supports of g++ 12 and clang 14 knows no name for it.
  unsigned eax = 7, ebx = 0, ecx = 1, edx = 0;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  if (__builtin_cpu_supports("avx2") && (eax & 1u << 4) != 0) return dot_avxvnni();
  if (__builtin_cpu_supports("avx2")) return dot_avx2();
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
  return dot_neon();
#endif
  return 0;
}

}  // namespace bitnet::cli
