#include "base/half.h"
#include "base/rng.h"
#include "kernels/cpu/dispatch.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

// Every packed layout there and back, on random and adversarial blocks: 20,000 of each in a usual run,
// BITNET_ROUND_TRIP_BLOCKS of them where that is set (scripts/nightly.sh: 10 million).
namespace bitnet {
namespace {

int64_t n_blocks_wanted() {
  const char* const text = std::getenv("BITNET_ROUND_TRIP_BLOCKS");
  return text != nullptr && std::atoll(text) > 0 ? std::atoll(text) : 20000;
}

// Values of a block; 64 for layouts that have none, or whole tiles.
int64_t block_values(TernaryLayout layout) {
  switch (layout) {
    case TernaryLayout::kI2S:
    case TernaryLayout::kQ1_0:
    case TernaryLayout::kQ2_0G128: return 128;
    case TernaryLayout::kTQ1_0:
    case TernaryLayout::kTQ2_0:
    case TernaryLayout::kHybrid: return 256;
    default: return 64;
  }
}

// A block of one of 16 kinds: all equal, alternating, ramps, one value in a sea of others, runs, every density of
// zeros.
void fill_block(uint64_t seed, int64_t n, uint8_t* codes) {
  const CounterRng rng(seed);
  const uint64_t choice = rng.bits(0);
  const uint64_t kind = choice & 15, a = (choice >> 8) % 3, b = (choice >> 16) % 3;
  const int64_t place = int64_t((choice >> 24) % uint64_t(n));
  switch (kind) {
    case 0: std::fill_n(codes, n, uint8_t(a)); return;
    case 1:
      for (int64_t i = 0; i < n; ++i) codes[i] = uint8_t(i % 2 == 0 ? a : b);
      return;
    case 2:
      for (int64_t i = 0; i < n; ++i) codes[i] = uint8_t((uint64_t(i) + a) % 3);
      return;
    case 3:
      std::fill_n(codes, n, uint8_t(a));
      codes[place] = uint8_t(b);
      return;
    case 4:
      std::fill_n(codes, place, uint8_t(a));
      std::fill_n(codes + place, n - place, uint8_t(b));
      return;
    case 5: {  // runs of 1 to 32
      uint8_t code = uint8_t(a);
      for (int64_t i = 0, run = 0; i < n; ++i, --run) {
        if (run == 0) {
          const uint64_t bits = rng.bits(uint64_t(i) + 1);
          run = int64_t(bits % 32) + 1;
          code = uint8_t((code + 1 + (bits >> 32) % 2) % 3);
        }
        codes[i] = code;
      }
      return;
    }
    default: break;
  }
  // Of 16 neighbours each is 0 unless its four bits are below `density`.
  const uint64_t density = kind < 10 ? kind - 5 : 16;
  for (int64_t i = 0; i < n; i += 16) {
    uint64_t bits = rng.bits(uint64_t(i) + 1), signs = rng.bits(uint64_t(i) + 2);
    for (int64_t k = i; k < std::min(i + 16, n); ++k, bits >>= 4, signs >>= 4) {
      codes[k] = (bits & 15) >= density ? uint8_t{1} : density == 16 ? uint8_t((signs & 15) % 3) : uint8_t(signs & 2);
    }
  }
}

// Instruction sets whose loops differ, the plain ones last; these alone where the layout has no loops of that kind.
std::vector<const TernaryCodecs*> codecs_for(TernaryLayout layout) {
  using enum TernaryLayout;
  std::vector<const TernaryCodecs*> all;
  if (!has_fixed_size(layout) || layout == kTL1 || layout == kTL2 || layout == kMsGpu) return {&kPlainTernaryCodecs};
  for (const CpuKernels* kernels : usable_cpu_kernels()) {
    if (all.empty() || all.back() != kernels->codecs) all.push_back(kernels->codecs);
  }
  return all;
}

// Scales that 16 bits hold, one a group where the layout keeps them.
TernaryScales make_scales(const TernaryLayoutInfo& info, int64_t n_rows, int64_t n_cols, uint64_t seed) {
  const CounterRng rng(seed);
  TernaryScales scales;
  scales.tensor = f16_to_f32(uint16_t(0x1000 + rng.bits(0) % 0x4000));
  if (info.scales != ScaleKind::kGroupF16 || seed % 2 == 0) return scales;
  scales.group_cols = info.group_cols;
  scales.groups.resize(size_t(n_rows * (n_cols / info.group_cols)));
  for (size_t i = 0; i < scales.groups.size(); ++i) {
    scales.groups[i] = f16_to_f32(uint16_t(0x1000 + rng.bits(i + 1) % 0x4000));
  }
  return scales;
}

class RoundTrip : public testing::TestWithParam<TernaryLayoutInfo> {};

TEST_P(RoundTrip, EveryBlockComesBack) {
  const TernaryLayoutInfo& info = GetParam();
  const std::vector<const TernaryCodecs*> codecs = codecs_for(info.layout);
  struct Shape {
    int64_t n_rows, n_cols;
  };
  std::vector<Shape> shapes;
  for (const Shape shape : {Shape{128, 2304}, Shape{96, 768}, Shape{256, 1536}, Shape{33, 512}, Shape{64, 4096},
                            Shape{61, 331}, Shape{1, 5}}) {
    const bool fits = !has_fixed_size(info.layout) || ternary_bytes(info.layout, shape.n_rows, shape.n_cols);
    if (fits) shapes.push_back(shape);
  }
  ASSERT_FALSE(shapes.empty());
  const int64_t wanted = n_blocks_wanted(), values = block_values(info.layout);
  std::vector<uint8_t> codes, decoded;
  int64_t n_blocks = 0, n_bytes = 0;
  for (uint64_t batch = 0; n_blocks < wanted; ++batch) {
    const Shape shape = shapes[batch % shapes.size()];
    const int64_t n = shape.n_rows * shape.n_cols;
    codes.resize(size_t((n + values - 1) / values * values));
    for (int64_t at = 0; at < n; at += values, ++n_blocks) fill_block(uint64_t(n_blocks), values, &codes[size_t(at)]);
    codes.resize(size_t(n));
    if (info.layout == TernaryLayout::kQ1_0) std::replace(codes.begin(), codes.end(), uint8_t{1}, uint8_t{2});
    const TernaryScales scales = make_scales(info, shape.n_rows, shape.n_cols, batch);
    std::vector<std::byte> first;
    for (size_t i = 0; i < codecs.size(); ++i) {
      const auto packed = encode_ternary(info.layout, shape.n_rows, shape.n_cols, codes, scales, {}, *codecs[i]);
      ASSERT_TRUE(packed.has_value()) << packed.error().message;
      decoded.assign(size_t(n), 0xee);
      const TernaryView view = {info.layout, shape.n_rows, shape.n_cols, *packed, {}};
      // By the next instruction set, so that two that err alike in both directions do not agree with themselves.
      const auto status = decode_ternary(view, 0, shape.n_rows, decoded.data(), *codecs[(i + 1) % codecs.size()]);
      ASSERT_TRUE(status.has_value()) << status.error().message;
      ASSERT_TRUE(decoded == codes) << info.name << " by " << codecs[i]->name << ", batch " << batch << ", value "
                                    << std::mismatch(codes.begin(), codes.end(), decoded.begin()).first - codes.begin();
      if (i == 0) first = *packed;
      ASSERT_TRUE(*packed == first) << info.name << " by " << codecs[i]->name << ", batch " << batch;
    }
    n_bytes += int64_t(first.size());
    if (info.scales == ScaleKind::kApart || batch % 16 > 1) continue;
    const auto kept = ternary_scales({info.layout, shape.n_rows, shape.n_cols, first, {}});
    ASSERT_TRUE(kept.has_value()) << kept.error().message;
    const auto same = same_scales(codes, shape.n_rows, shape.n_cols, scales, *kept);
    ASSERT_TRUE(same.has_value()) << same.error().message;
  }
  std::string names;
  for (const TernaryCodecs* one : codecs) names += (names.empty() ? "" : ", ") + std::string(one->name);
  std::printf("%-11s %9lld blocks of %3lld values came back, %11lld bytes, by %s\n", info.flag.data(),
              static_cast<long long>(n_blocks), static_cast<long long>(values), static_cast<long long>(n_bytes),
              names.c_str());
}

INSTANTIATE_TEST_SUITE_P(Layouts, RoundTrip, testing::ValuesIn(ternary_layouts().begin(), ternary_layouts().end()),
                         [](const auto& parameter) { return std::string(parameter.param.flag); });

}  // namespace
}  // namespace bitnet
