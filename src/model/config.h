#pragma once

#include "base/result.h"
#include "kernels/backend.h"

#include <cstdint>
#include <string>

namespace bitnet {

// What the graph (model/forward.cc) needs to know; the same for every file format.
struct ModelConfig {
  std::string architecture;  // GGUF's word: "bitnet-b1.58", "bitnet-25", "bitnet", "llama"
  std::string name;
  int64_t n_layers = 0;
  int64_t d_model = 0;
  int64_t d_ff = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t n_ctx_train = 0;
  int64_t rope_dim = 0;  // dimensions of a head that rotate, the first ones
  double rope_theta = 10000.0;
  float rms_eps = 1e-5f;
  RopeStyle rope_style = RopeStyle::kHalfSplit;
  GateActivation gate_activation = GateActivation::kRelu2;
  bool sub_norms = false;    // attn_sub_norm before o, ffn_sub_norm before down
  bool tied_head = false;    // logits = token embedding * x
  bool ternary = true;       // the layers' linears quantise their inputs to int8
  bool input_norms = false;  // an RMSNorm of its own in front of each linear (use_rms_norm)
  float input_norm_eps = 1e-6f;
};

// Shapes that no graph can run (zero, not dividing, wrapping), naming `file` and the field.
Status check_config(const ModelConfig& config, const std::string& file);

}  // namespace bitnet
