#pragma once

#include "base/result.h"
#include "model/convert.h"
#include "tensor/dtype.h"

#include <functional>
#include <string>
#include <vector>

namespace bitnet {

struct MergeOptions {
  DType type = DType::kF16;  // of the merged linears: F16, BF16 or F32
  bool requantize = false;   // ternary again, as far as that goes: the codes and the scale with the least squared error
  bool to_hf = true;         // a folder; with requantize also a GGUF file
  double scale = 1;          // times what the adapter adds
  std::function<bool(double done)> on_progress;  // false stops (kInterrupted), leaving no output behind
};

// What became of a linear that the adapter changes. Norms are those of all its values (Frobenius).
struct MergedWeight {
  std::string name;    // in a folder
  double delta = 0;    // |what the adapter adds| / |base|
  double error = 0;    // |written - (base + added)| / |base + added|
  double kept = 0;     // share of what the adapter adds that is in the file: 1 - |written - (base + added)| / |added|
  double flipped = 0;  // share of the codes that are others than the base's; requantised only
};
struct MergeReport {
  ConvertReport file;
  std::vector<MergedWeight> weights;  // in file order
};

// Base and adapter as one model. No ternary matrix holds a low-rank float exactly: so all linears become floats, base +
// scale * B A rounded once, in a Hugging Face folder whose linears see unquantised inputs; or, requantised, those that
// the adapter changes become ternary again, at an error that the report has, and the others keep codes and scales.
Result<MergeReport> merge_lora(const std::string& base, const std::string& adapter, const std::string& output,
                               const MergeOptions& options);

}  // namespace bitnet
