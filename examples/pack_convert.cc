// pack_convert: one ternary matrix in every packed layout, and back to I2_S without losing a bit.
#include "base/rng.h"
#include "kernels/cpu/dispatch.h"
#include "quant/ternary.h"

#include <cstdio>

using namespace bitnet;

int main() {
  constexpr int64_t kRows = 1536, kCols = 4096;
  std::vector<uint8_t> codes(kRows * kCols);  // w + 1
  const CounterRng rng(1);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(rng.bits(i) % 3);
  TernaryScales scales;
  scales.tensor = 0.03125f;  // 16 bits hold it, so that every layout does
  const TernaryCodecs& fast = cpu_ternary_codecs();
  const auto packed = encode_ternary(TernaryLayout::kI2S, kRows, kCols, codes, scales, {}, fast);
  if (!packed) return 1;
  const TernaryView i2_s = {TernaryLayout::kI2S, kRows, kCols, *packed, {}};

  std::printf("loops of %s\n%-22s %9s %13s\n", fast.name, "layout", "bytes", "bits a weight");
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    const auto there = convert_ternary(i2_s, nullptr, info.layout, {}, fast);
    if (!there) {  // Q1_0 has no zeros
      std::printf("%-22s %s\n", info.name.data(), there.error().message.c_str());
      continue;
    }
    const TernaryView view = {info.layout, kRows, kCols, there->bytes, {}};
    const auto back = convert_ternary(view, &there->scales, TernaryLayout::kI2S, {}, fast);
    if (!back || back->bytes != *packed) {
      std::fprintf(stderr, "%s lost something\n", info.name.data());
      return 1;
    }
    std::printf("%-22s %9zu %13.3f\n", info.name.data(), there->bytes.size(),
                8.0 * double(there->bytes.size()) / double(codes.size()));
  }
  return 0;
}
