#pragma once

#include "model/config.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

enum class WeightRole : uint8_t {
  kTokenEmbedding,
  kOutputNorm,
  kOutput,
  kAttnNorm,
  kQ,
  kK,
  kV,
  kAttnSubNorm,
  kO,
  kFfnNorm,
  kGate,
  kUp,
  kFfnSubNorm,
  kDown,
  kQInputNorm,  // the RMSNorms in front of single linears (use_rms_norm)
  kKInputNorm,
  kVInputNorm,
  kOInputNorm,
  kGateInputNorm,
  kUpInputNorm,
  kDownInputNorm,
};

enum class WeightKind : uint8_t {
  kVector,  // float [n]
  kLinear,  // a layer's projection [out, in], ternary or float
  kTable,   // token embedding and output head [vocab_size, d_model], always float
};

// One weight of a model and how both worlds call it.
struct WeightSpec {
  WeightRole role = WeightRole::kTokenEmbedding;
  WeightKind kind = WeightKind::kTable;
  int64_t layer = -1;           // -1 outside the layers
  Shape shape;                  // [out, in] or [n]
  std::string gguf_name;        // "blk.0.attn_q.weight"
  std::string hf_name;          // "model.layers.0.self_attn.q_proj.weight"
  std::string gguf_scale_name;  // linears: "blk.0.attn_q.scale", [1], a multiplier that may stand beside the weight
  std::string hf_scale_name;    // linears: "model.layers.0.self_attn.q_proj.weight_scale", [1], beside packed weights
  std::string hf_older_name;    // sub-norms as 1bitLLM's code called them, else empty

  int64_t n_values() const { return shape.size() == 1 ? shape[0] : shape[0] * shape[1]; }
};

// The one list of a model's weights: embedding, layers in order, final norm, head unless tied. All of them are
// required, whatever the config does not have is not in the list. Loading, checking, converting, counting and
// synthesising go by it. The config must have passed check_config.
std::vector<WeightSpec> list_weights(const ModelConfig& config);

int64_t count_parameters(const ModelConfig& config);

}  // namespace bitnet
