#include "model/convert.h"

#include "model/export.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr std::array kLinearTypes = {DType::kI2_S, DType::kTQ1_0, DType::kTQ2_0, DType::kIQ1_BN, DType::kIQ2_BN,
                                     DType::kQ2_0, DType::kQ2_K,  DType::kQ3_K,  DType::kQ4_0,   DType::kQ4_1,
                                     DType::kQ4_K, DType::kQ5_0,  DType::kQ5_1,  DType::kQ5_K,   DType::kQ6_K,
                                     DType::kQ8_0, DType::kF16,   DType::kBF16,  DType::kF32};
constexpr std::array kTableTypes = {DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ6_K, DType::kQ5_K,
                                    DType::kQ5_1, DType::kQ5_0, DType::kQ4_K, DType::kQ4_1, DType::kQ4_0,
                                    DType::kQ3_K, DType::kQ2_K, DType::kF32};

Status check_types(const ConvertOptions& options) {
  if (std::find(kLinearTypes.begin(), kLinearTypes.end(), options.linear_type) == kLinearTypes.end()) {
    return invalid_argument(
        "linear layers cannot be written as {}; use i2_s, tq1_0, tq2_0, iq1_bn, iq2_bn, q2_0, q8_0, another "
        "type of ggml's blocks, f16, bf16 or f32",
        dtype_info(options.linear_type).name);
  }
  const DType table = options.embed_type.value_or(DType::kF16);
  if (std::find(kTableTypes.begin(), kTableTypes.end(), table) == kTableTypes.end()) {
    return invalid_argument(
        "the embedding cannot be written as {}; use f16, bf16, q8_0, q6_k, another type of ggml's blocks or f32",
        dtype_info(table).name);
  }
  if (!options.to_hf) return ok();
  if (options.packed) return invalid_argument("packed matrices are kept in a GGUF file, not in a folder");
  if (!is_ternary(options.linear_type)) {
    return invalid_argument("a Hugging Face folder holds packed ternary weights; it cannot be written as {}",
                            dtype_info(options.linear_type).name);
  }
  if (table != DType::kF16 && table != DType::kBF16 && table != DType::kF32) {
    return invalid_argument("a Hugging Face folder cannot hold an embedding of {}; use f16, bf16 or f32",
                            dtype_info(table).name);
  }
  return ok();
}

}  // namespace

Status check_output(const std::string& source, const std::string& output, bool to_hf) {
  std::error_code error;
  if (fs::equivalent(source, output, error)) {
    return invalid_argument("{} is the source itself: name another output", output);
  }
  if (!to_hf && fs::is_directory(output, error)) {
    return invalid_argument("{} is a folder, expected the name of a GGUF file", output);
  }
  const fs::path parent = fs::path(output).has_parent_path() ? fs::path(output).parent_path() : fs::path(".");
  const bool in_source = fs::is_directory(source, error) && fs::equivalent(source, parent, error);
  if (in_source && fs::exists(output, error) && fs::path(output).extension() != ".gguf") {
    return invalid_argument("{} is a file of the source: name another output", output);
  }
  return ok();
}

namespace {

uint64_t output_bytes(const std::string& output, bool to_hf) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(to_hf ? output + "/model.safetensors" : output, error);
  return error ? 0 : bytes;
}

}  // namespace

Result<ConvertReport> convert(const std::string& source, const std::string& output, const ConvertOptions& options) {
  BN_RETURN_IF_ERROR(check_types(options));
  BN_RETURN_IF_ERROR(check_output(source, output, options.to_hf));
  CheckpointOptions reading;
  reading.i2s_arm64 = options.i2s_arm64;
  reading.widen = false;
  reading.pre_tokenizer = options.pre_tokenizer;
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(source, reading));
  Progress progress(options.on_progress, count_export_steps(checkpoint.weights()));
  BN_ASSIGN_OR_RETURN(ExportPlan plan, plan_export(checkpoint, options, progress));
  if (options.to_hf) {
    BN_RETURN_IF_ERROR(export_folder(checkpoint, plan, output, progress));
  } else {
    BN_RETURN_IF_ERROR(export_gguf(checkpoint, plan, options, output, progress));
  }
  ConvertReport report;
  report.source_bytes = checkpoint.file_bytes();
  report.output_bytes = output_bytes(output, options.to_hf);
  report.n_tensors = int64_t(plan.weights.size());
  report.notices = checkpoint.notices();
  if (!checkpoint.vocabulary()) report.notices.push_back("the source has no vocabulary: the output runs on token ids");
  report.notices.insert(report.notices.end(), plan.notices.begin(), plan.notices.end());
  return report;
}

}  // namespace bitnet
