#pragma once

#include "base/result.h"
#include "train/engine.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

// What computes losses, gradients and updates.
enum class ReplayArithmetic : uint8_t {
  kFloat,    // PlainOps in float32, the precision of the record
  kDouble,   // the definition, PlainOps<double>, and AdamW in double: what differs from the record is the record's own
             // rounding
  kKernels,  // what training runs on
};
struct ReplayOptions {
  int n_threads = 0;  // 0: all processors of this process
  ReplayArithmetic arithmetic = ReplayArithmetic::kFloat;
  std::string device = "cpu";                           // another one computes with its own kernels
  TrainPrecision precision = TrainPrecision::kFloat32;  // of those
};

// How a recorded training run and ours differ. Relative differences of a tensor: norm of the difference over the norm
// of what is recorded.
struct ReplayReport {
  std::vector<double> losses;
  double max_loss_diff = 0;
  double max_grad_rel_diff = 0;         // after the first step's backward pass
  double max_final_rel_diff = 0;        // weights after the last step
  std::string worst_grad, worst_final;  // the tensors' names
};

// Trains the model that a safetensors file holds (`init.*`) on the file's `tokens` [n_steps, n_sequences, n + 1] and
// compares with its `losses` [n_steps], `grad0.*` and `final.*`. Dimensions come from the shapes, hyper-parameters from
// the metadata; whatever is missing or does not fit is refused. docs/training.md has the format.
Result<ReplayReport> replay(const std::string& path, const ReplayOptions& options);

}  // namespace bitnet
