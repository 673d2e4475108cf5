#pragma once

#include "base/result.h"
#include "quant/granularity.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace bitnet {

// Uniform quantisation to `bits` bits: w = scale * (q - zero).
struct IntegerOptions {
  int bits = 8;           // 1 to 8
  bool symmetric = true;  // q in [-(2^(bits-1) - 1), 2^(bits-1) - 1], zero = 0; else q in [0, 2^bits - 1]. One
                          // symmetric bit is the sign, with scale mean|w| (XNOR-Net)
  Granularity granularity = Granularity::kTensor;
  int64_t group_cols = 128;  // of kGroup
  bool search = false;       // shrink the range where that lowers the squared error, instead of covering all values
  // Rounds up with the probability of the fraction (value i draws number i of this seed), so that the mean of many is
  // the value; else half to even.
  std::optional<uint64_t> stochastic_seed;
};

struct IntegerCodes {
  IntegerOptions options;
  int64_t n_rows = 0, n_cols = 0;
  std::vector<int16_t> q;      // [n_rows, n_cols]
  std::vector<float> scales;   // one a tensor, row, column or group (row-major)
  std::vector<int16_t> zeros;  // beside them; empty when symmetric
  size_t group_of(int64_t row, int64_t col) const;
};
Result<IntegerCodes> quantize_integers(std::span<const float> values, int64_t n_rows, int64_t n_cols,
                                       const IntegerOptions& options);
Status dequantize_integers(const IntegerCodes& codes, std::span<float> out);  // [n_rows, n_cols]

// Unsigned numbers of `bits` bits one after another, the first in the low bits of the first byte: 3 bits take 3.
std::vector<std::byte> pack_bits(std::span<const uint8_t> values, int bits);
// n values; what `bytes` lacks is refused.
Result<std::vector<uint8_t>> unpack_bits(std::span<const std::byte> bytes, int bits, int64_t n);

}  // namespace bitnet
