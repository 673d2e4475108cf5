#pragma once

#include "base/half.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/reference/reference_backend.h"
#include "quant/blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
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

// Rows of normals, of zeros, of one large value, of exact halves (ties), of subnormals and of infinities and NaNs.
inline Floats difficult_rows(int64_t n_cols) {
  Floats x(7, n_cols, 5);
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n_cols; ++i) {
    x.view().row(1)[i] = i % 2 == 0 ? 0.0f : -0.0f;
    x.view().row(2)[i] = i == n_cols / 2 ? -3e38f : 1e-3f;
    x.view().row(3)[i] = i == 0 ? 127.0f : float(i % 250 - 125) + 0.5f;
    x.view().row(4)[i] = 1e-41f * float(i % 7);
    x.view().row(5)[i] = i % 5 == 3 ? nan : float(i);
    x.view().row(6)[i] = i % 3 == 1 ? -infinity : float(-i);
  }
  return x;
}

// Bytes of a matrix: encoded normals, or for the types without an encoder random blocks with sensible scales.
inline std::vector<std::byte> make_weights(DType dtype, int64_t n_rows, int64_t n_cols) {
  if (dtype != DType::kQ4_0 && dtype != DType::kQ4_K) {
    auto bytes = quantize(dtype, random_floats(n_rows * n_cols, 31), n_rows, n_cols);
    EXPECT_TRUE(bytes.has_value());
    return *std::move(bytes);
  }
  const DTypeInfo& info = dtype_info(dtype);
  const CounterRng rng(8);
  std::vector<std::byte> bytes(size_t(n_rows * n_cols / info.block_size * info.block_bytes));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(rng.bits(i) & 0xff);
  for (size_t block = 0; block < bytes.size(); block += size_t(info.block_bytes)) {
    for (size_t scale = 0; scale < (dtype == DType::kQ4_K ? 2u : 1u); ++scale) {
      const uint16_t half = f32_to_f16(float(rng.normal(block + scale)) * 0.1f);
      std::memcpy(&bytes[block + 2 * scale], &half, 2);
    }
  }
  return bytes;
}

inline FloatSource float_source(DType dtype, const std::vector<std::byte>& bytes, int64_t n_rows, int64_t n_cols) {
  FloatSource source;
  source.dtype = dtype;
  source.n_rows = n_rows;
  source.n_cols = n_cols;
  const size_t row_bytes = bytes.size() / size_t(n_rows);
  source.read_rows = [&bytes, row_bytes](int64_t row, int64_t n, std::byte* out) -> Status {
    std::memcpy(out, bytes.data() + size_t(row) * row_bytes, size_t(n) * row_bytes);
    return ok();
  };
  return source;
}

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
