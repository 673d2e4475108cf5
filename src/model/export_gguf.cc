#include "base/half.h"
#include "format/gguf.h"
#include "model/checkpoint_state.h"
#include "model/export.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

// Ternary types whose scales have 16 bits.
bool is_half(DType type) { return type == DType::kTQ1_0 || type == DType::kTQ2_0 || type == DType::kIQ1_BN; }

// The exact scales beside blocks that round them to binary16: one entry for each ternary tensor in file order, 0 for
// one with scales for groups of columns.
Status add_exact_scales(const ExportPlan& plan, GgufWriter& writer) {
  std::vector<float> scales;
  bool needed = false;
  for (const ExportWeight& weight : plan.weights) {
    if (!is_ternary(weight.dtype)) continue;
    const bool single = weight.scales.groups.empty() && weight.ternary;
    scales.push_back(single ? weight.scales.tensor : 0.0f);
    needed |= single && is_half(weight.dtype) && f16_to_f32(f32_to_f16(weight.scales.tensor)) != weight.scales.tensor;
  }
  if (!needed) return ok();
  return writer.add_metadata(kExactScalesKey, GgufArray(std::move(scales)));
}

// Readers take the number of tokens for the number of embedding rows, so that rows which no token uses get a name.
Vocabulary with_a_token_a_row(Vocabulary vocabulary, size_t n_rows) {
  while (vocabulary.tokens.size() < n_rows) {
    vocabulary.tokens.push_back(fmt::format("[PAD{}]", vocabulary.tokens.size()));
    vocabulary.types.push_back(TokenType::kUnused);
    if (!vocabulary.scores.empty()) vocabulary.scores.push_back(-1000.0f);
  }
  return vocabulary;
}

}  // namespace

uint32_t gguf_file_type(DType linear_type) {
  switch (linear_type) {
    case DType::kF32: return 0;
    case DType::kF16: return 1;
    case DType::kQ4_0: return 2;
    case DType::kQ4_1: return 3;
    case DType::kQ8_0: return 7;
    case DType::kQ5_0: return 8;
    case DType::kQ5_1: return 9;
    case DType::kQ2_K: return 10;
    case DType::kQ3_K: return 12;
    case DType::kQ4_K: return 15;
    case DType::kQ5_K: return 17;
    case DType::kQ6_K: return 18;
    case DType::kBF16: return 32;
    case DType::kTQ1_0: return 36;
    case DType::kTQ2_0: return 37;
    case DType::kI2_S: return 40;
    case DType::kIQ1_BN: return 136;
    case DType::kIQ2_BN: return 137;
    default: return 1024;  // llama.cpp's word for "guessed"
  }
}

Status export_gguf(const Checkpoint& checkpoint, const ExportPlan& plan, const ConvertOptions& options,
                   const std::string& path, Progress& progress) {
  BN_ASSIGN_OR_RETURN(GgufWriter writer, GgufWriter::create(path));
  BN_RETURN_IF_ERROR(config_to_gguf(plan.config, writer));
  BN_RETURN_IF_ERROR(writer.add_metadata("general.file_type", gguf_file_type(options.linear_type)));
  BN_RETURN_IF_ERROR(writer.add_metadata("general.quantization_version", uint32_t{2}));
  if (checkpoint.vocabulary()) {
    const size_t n_rows = size_t(plan.config.vocab_size);
    BN_RETURN_IF_ERROR(vocabulary_to_gguf(with_a_token_a_row(*checkpoint.vocabulary(), n_rows), writer));
  }
  BN_RETURN_IF_ERROR(add_exact_scales(plan, writer));
  if (options.packed) BN_RETURN_IF_ERROR(writer.add_metadata(kPackedKey, uint32_t{1}));
  if (plan.by_scheme) {
    std::vector<std::string> schemes;
    for (const ExportWeight& weight : plan.weights) schemes.push_back(weight.scheme.text);
    BN_RETURN_IF_ERROR(writer.add_metadata(kSchemesKey, GgufArray(std::move(schemes))));
  }
  for (const ExportWeight& weight : plan.weights) {
    const Shape packed = {int64_t(weight.packed_bytes)};
    BN_RETURN_IF_ERROR(
        writer.add_tensor(weight.spec->gguf_name, weight.dtype, weight.packed_bytes > 0 ? packed : weight.spec->shape));
  }
  BN_RETURN_IF_ERROR(writer.add_checksums());
  BN_RETURN_IF_ERROR(writer.begin_data());
  ThreadPool pool(available_cpus());
  for (const ExportWeight& weight : plan.weights) {
    BN_RETURN_IF_ERROR(export_weight(checkpoint, plan, weight, pool, progress,
                                     [&writer](std::span<const std::byte> bytes) { return writer.write_data(bytes); }));
  }
  return writer.finish();
}

}  // namespace bitnet
