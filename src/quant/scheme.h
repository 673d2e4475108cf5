#pragma once

#include "base/result.h"
#include "quant/integer_quantizer.h"
#include "quant/ternary_quantizers.h"
#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// One way to store a weight matrix, as `bitnet quantize --scheme` and plans name it: NAME[:KEY=VALUE,...].
//
//   keep                                  as it is
//   absmean absmedian lsq twn learned     ternary; per=tensor (default), row or group; group=N; store=TYPE
//   q1_0                                  1 bit: the sign, mean|w| of 128 values
//   q2_k q3_k q4_0 q4_1 q4_k q5_0 q5_1 q5_k q6_k q8_0 f16 bf16 f32      ggml's types
//   int1 ... int8                         uniform; per=tensor, row, column or group; group=N; asym; search;
//                                         stochastic=SEED; rotate=N (Hadamard blocks of N columns);
//                                         store=f32 (default), f16 or bf16
//
// Ternary schemes are stored as i2_s (per tensor), iq2_bn (per row), q2_0, tq2_0 (groups of 64 and of 256), unless
// `store` says otherwise; group=N must be what the type keeps. int schemes are for measuring: the file holds the values
// that such a format would have.
namespace bitnet {

enum class SchemeKind : uint8_t { kKeep, kTernary, kBinary, kBlocks, kIntegers };

struct QuantScheme {
  SchemeKind kind = SchemeKind::kKeep;
  std::string text = "keep";   // what parse_scheme() read
  DType stored = DType::kF32;  // in a GGUF file
  TernaryOptions ternary;      // of kTernary
  IntegerOptions integers;     // of kIntegers
  int64_t rotate = 0;          // columns a Hadamard block; 0: none
};
Result<QuantScheme> parse_scheme(std::string_view text);

// The matrix in scheme.stored. For every kind but kKeep.
Result<std::vector<std::byte>> quantize_by_scheme(const QuantScheme& scheme, std::span<const float> values,
                                                  int64_t n_rows, int64_t n_cols,
                                                  const TernaryCodecs& codecs = kPlainTernaryCodecs);
// What a stored matrix means, for every type that linears and tables may have in a GGUF file.
Status dequantize_stored(DType type, std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols, float* out,
                         const TernaryCodecs& codecs = kPlainTernaryCodecs);
// The packed layout of a ternary type; nothing for others.
std::optional<TernaryLayout> layout_of_dtype(DType type);

// Bits a weight that the scheme would take in a format of its own, scales counted as 16 bits: for int schemes less than
// the file's.
double nominal_bits(const QuantScheme& scheme, int64_t n_rows, int64_t n_cols);

}  // namespace bitnet
