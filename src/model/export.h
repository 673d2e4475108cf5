#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/row_order.h"

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
  RowOrder rows;              // of the output, from a folder's order
};

struct ExportPlan {
  ModelConfig config;  // of the output
  std::vector<ExportWeight> weights;
  std::vector<std::string> notices;
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

// Reads every linear once, so that whatever cannot be written is refused before anything is.
Result<ExportPlan> plan_export(const Checkpoint& checkpoint, const ConvertOptions& options, Progress& progress);

// One weight's bytes in its output type, in pieces.
using ByteSink = std::function<Status(std::span<const std::byte>)>;
Status export_weight(const Checkpoint& checkpoint, const ExportWeight& weight, ThreadPool& pool, Progress& progress,
                     const ByteSink& sink);

Status export_gguf(const Checkpoint& checkpoint, const ExportPlan& plan, const ConvertOptions& options,
                   const std::string& path, Progress& progress);
Status export_folder(const Checkpoint& checkpoint, const ExportPlan& plan, const std::string& folder,
                     Progress& progress);

// GGUF's general.file_type of a file whose linears have this type.
uint32_t gguf_file_type(DType linear_type);

}  // namespace bitnet
