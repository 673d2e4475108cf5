#pragma once

#include "base/result.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace bitnet {

struct ConvertOptions {
  // I2_S, TQ1_0, TQ2_0, IQ1_BN, IQ2_BN, Q2_0, a type of ggml's blocks, F16, BF16 or F32.
  DType linear_type = DType::kI2_S;
  bool packed = false;              // ternary linears as packed matrices (format/packed_ternary.h), which only we read
  std::optional<DType> embed_type;  // a type of ggml's blocks, F16, BF16 or F32; nothing: as in the source
  bool to_hf = false;               // write a Hugging Face folder (packed ternary safetensors) instead of a GGUF file
  bool i2s_arm64 = false;           // the source's I2_S tensors have bitnet.cpp's ARM layout
  std::string pre_tokenizer;        // overrides the vocabulary's
  std::function<bool(double done)> on_progress;  // false stops (kInterrupted), leaving no output behind
};
struct ConvertReport {
  uint64_t source_bytes = 0, output_bytes = 0;
  int64_t n_tensors = 0;
  std::vector<std::string> notices;  // what was lost or changed: "Q8_0 cannot hold ternary scales exactly"
};

// Any checkpoint that Model::load takes to a GGUF file or a Hugging Face folder.
// Ternary codes and scales survive exactly, q/k rows are permuted or unpermuted as the two worlds want.
Result<ConvertReport> convert(const std::string& source, const std::string& output, const ConvertOptions& options);

struct SynthOptions {
  std::string preset = "2b4t";
  DType linear_type = DType::kI2_S;
  DType embed_type = DType::kF16;
  uint64_t seed = 0;
  std::function<bool(double done)> on_progress;
};
// A GGUF model of a known shape with seeded random weights, statistically like a trained one where speed depends on it.
Status synthesize(const std::string& output, const SynthOptions& options);
std::vector<std::string> synth_presets();  // "2b4t", "700m", "3b", "llama3-8b", ...

}  // namespace bitnet
