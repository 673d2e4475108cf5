#pragma once

#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/reference/reference_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

// For the tests of this room: every usable instruction set as a parameter, beside the reference back end.
namespace bitnet {

inline void PrintTo(const CpuKernels* kernels, std::ostream* out) { *out << kernels->name; }

class EveryIsa : public testing::TestWithParam<const CpuKernels*> {
 protected:
  const CpuBackend cpu_{*GetParam()};
  const ReferenceBackend reference_{};
};
// Instruction sets that this machine lacks, in plain C++.
std::vector<const CpuKernels*> emulated_cpu_kernels();
// A suite of that name that runs on each of them.
#define BN_EVERY_ISA(Suite)                                                     \
  class Suite : public EveryIsa {};                                             \
  INSTANTIATE_TEST_SUITE_P(Cpu, Suite, testing::ValuesIn(usable_cpu_kernels()), \
                           [](const auto& parameter) { return std::string(parameter.param->name); })

inline std::unique_ptr<Stream> make_stream(const Backend& backend, int n_threads, int64_t max_tokens, int64_t max_cols,
                                           int64_t n_ctx = 1) {
  StreamOptions options;
  options.n_threads = n_threads;
  options.max_tokens = max_tokens;
  options.max_cols = max_cols;
  options.n_ctx = n_ctx;
  options.n_heads = 32;
  auto stream = backend.new_stream(options);
  EXPECT_TRUE(stream.has_value());
  return *std::move(stream);
}

inline std::vector<float> random_floats(int64_t n, uint64_t seed, double scale = 1.0) {
  const CounterRng rng(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(rng.normal(i) * scale);
  return values;
}

// A matrix of floats that owns its memory.
struct Floats {
  Floats(int64_t n_rows, int64_t n_cols, uint64_t seed = 0)
      : values(seed == 0 ? std::vector<float>(size_t(n_rows * n_cols)) : random_floats(n_rows * n_cols, seed)),
        n_rows_(n_rows),
        n_cols_(n_cols) {}
  MatrixView view() { return {values.data(), n_rows_, n_cols_}; }
  std::vector<float> values;

 private:
  int64_t n_rows_, n_cols_;
};

struct Quantized {
  Quantized(int64_t n_rows, int64_t n_cols)
      : codes(size_t(n_rows * quantized_stride(n_cols))), inv_scales(size_t(n_rows)), sums(size_t(n_rows)) {
    view = {codes.data(), inv_scales.data(), sums.data(), n_rows, n_cols, quantized_stride(n_cols)};
  }
  std::vector<int8_t> codes;
  std::vector<float> inv_scales;
  std::vector<int32_t> sums;
  QuantizedView view;
};

// Equal bits, so that -0 differs from 0; the first difference is named.
inline testing::AssertionResult same_bits(const std::vector<float>& want, const std::vector<float>& got) {
  if (want.size() != got.size()) return testing::AssertionFailure() << want.size() << " values, got " << got.size();
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::bit_cast<uint32_t>(want[i]) != std::bit_cast<uint32_t>(got[i])) {
      return testing::AssertionFailure() << "value " << i << " of " << want.size() << ": want " << want[i] << " got "
                                         << got[i] << " (difference " << double(got[i]) - double(want[i]) << ")";
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace bitnet
