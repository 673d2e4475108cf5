#pragma once

#include "base/result.h"
#include "model/convert.h"
#include "quant/error_metrics.h"
#include "quant/scheme.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace bitnet {

// What became of one weight.
struct WeightReport {
  std::string name;    // in the GGUF file
  std::string scheme;  // "keep", "lsq:group=64"
  std::string type;    // in the file: "Q2_0"
  Shape shape;
  uint64_t bytes = 0;
  ErrorMetrics error;  // of the values in the file; n = 0 where they were kept
  double zeros = 0;    // share of them that are 0
};

// Weights by their GGUF names and the scheme for each.
using QuantPlan = std::map<std::string, QuantScheme, std::less<>>;

struct QuantizeOptions {
  QuantScheme linears;     // for linear layers
  QuantScheme tables;      // for embedding and head
  QuantPlan plan;          // for those it names, instead
  bool i2s_arm64 = false;  // the source's I2_S tensors have bitnet.cpp's ARM layout
  std::string pre_tokenizer;
  std::function<bool(double done)> on_progress;  // false stops (kInterrupted), leaving no output behind
};
struct QuantizeReport {
  ConvertReport file;
  std::vector<WeightReport> weights;  // in file order
};

// Any checkpoint to a GGUF file with each linear and table in its scheme (quant/scheme.h). Weights that are ternary
// already keep their codes and scales under every ternary scheme. Names in the plan that the model does not have are
// refused.
Result<QuantizeReport> quantize_model(const std::string& source, const std::string& output,
                                      const QuantizeOptions& options);

// {"weights": {"blk.0.attn_q.weight": "tq1_0", ...}}, other keys ignored; `name` is for messages. And back.
Result<QuantPlan> parse_quant_plan(std::string_view json, const std::string& name);

}  // namespace bitnet
