#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/quantize_model.h"
#include "model/row_order.h"
#include "quant/scheme.h"

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

// Inside of convert(): what is to be written, decided before the first byte is, and the parts both kinds of output
// share.
namespace bitnet {

struct ExportWeight {
  const WeightSpec* spec = nullptr;
  DType dtype = DType::kF32;  // in the output; U8: transformers' packing with a scale beside it
  bool ternary = false;       // the source has codes and scales
  TernaryScales scales;       // of a ternary source
  QuantScheme scheme;         // what becomes of the values, unless codes or the source's type are kept
  uint64_t packed_bytes = 0;  // of a packed matrix (dtype I8), else 0
  RowOrder rows;              // of the output, from a folder's order
};

// A linear to be written.
using LinearOf = std::function<Result<LinearSource>(const WeightSpec&)>;

struct ExportPlan {
  ModelConfig config;  // of the output
  std::vector<ExportWeight> weights;
  std::vector<std::string> notices;
  LinearOf linear_of;                            // instead of the checkpoint's linears, unless null
  bool by_scheme = false;                        // each weight has a scheme, which the file tells
  std::vector<WeightReport>* reports = nullptr;  // filled while weights are written, unless null
};

// Steps done of all, told to the caller of convert().
class Progress {
 public:
  Progress(std::function<bool(double)> on_progress, int64_t n_total)
      : on_progress_(std::move(on_progress)), n_total_(n_total) {}
  // Fails with kInterrupted when the caller wants to stop.
  Status advance(int64_t n);

 private:
  std::function<bool(double)> on_progress_;
  int64_t n_total_;
  int64_t n_done_ = 0;
};
int64_t count_export_steps(const std::vector<WeightSpec>& weights);

// What is to become of a weight; null: options alone decide.
using SchemeOf = std::function<QuantScheme(const WeightSpec&)>;

// Reads every linear once, so that whatever cannot be written is refused before anything is.
Result<ExportPlan> plan_export(const Checkpoint& checkpoint, const ConvertOptions& options, Progress& progress,
                               const SchemeOf& scheme_of = {}, const LinearOf& linear_of = {});

// One weight's bytes in its output type, in pieces.
using ByteSink = std::function<Status(std::span<const std::byte>)>;
Status export_weight(const Checkpoint& checkpoint, const ExportPlan& plan, const ExportWeight& weight, ThreadPool& pool,
                     Progress& progress, const ByteSink& sink);

// Rows of a linear, which outlives the reader, as floats.
using RowReader = std::function<Status(int64_t begin, int64_t n_rows, float* out)>;
RowReader float_rows(const LinearSource& source);

// A ternary source as a packed matrix.
Result<std::vector<std::byte>> pack_source(const TernarySource& source, ThreadPool& pool);

Status export_gguf(const Checkpoint& checkpoint, const ExportPlan& plan, const ConvertOptions& options,
                   const std::string& path, Progress& progress);
Status export_folder(const Checkpoint& checkpoint, const ExportPlan& plan, const std::string& folder,
                     Progress& progress);

// An output that is the source, a folder or one of the source's files is refused.
Status check_output(const std::string& source, const std::string& output, bool to_hf);

// GGUF's general.file_type of a file whose linears have this type.
uint32_t gguf_file_type(DType linear_type);

}  // namespace bitnet
