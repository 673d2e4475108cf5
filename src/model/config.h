#pragma once

#include "base/result.h"
#include "format/gguf.h"
#include "format/json.h"
#include "kernels/backend.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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
  GateActivation gate_activation = GateActivation::kRelu2;
  bool sub_norms = false;    // attn_sub_norm before o, ffn_sub_norm before down
  bool tied_head = false;    // logits = token embedding * x
  bool ternary = true;       // the layers' linears quantise their inputs to int8
  bool input_norms = false;  // an RMSNorm of its own in front of each linear (use_rms_norm)
  float input_norm_eps = 1e-6f;
};

// Shapes that no graph can run (zero, not dividing, wrapping), naming `file` and the field.
Status check_config(const ModelConfig& config, const std::string& file);

struct GgufConfig {
  ModelConfig config;
  std::vector<std::string> notices;
};
// The config that a GGUF file's metadata describe. What the metadata leave to the tensors (tied head, input norms,
// ternary or not) is read off their names and types. Keys that change the mathematics in a way that the graph does not
// have are refused.
Result<GgufConfig> config_from_gguf(const GgufFile& file);

struct HfConfig {
  ModelConfig config;
  bool quantized = false;                  // there is a ternary quantisation: its linears are packed or latent (online)
  bool online = false;                     // latent float weights, ternarised when loaded
  bool divide_scale = false;               // y / weight_scale (BitLinear) instead of y * weight_scale (AutoBitLinear)
  std::vector<std::string> not_converted;  // modules that stay float: "lm_head", "model.layers.0.mlp.up_proj"
  std::vector<std::string> notices;

  // As transformers decides: the name itself, or a part of the module's path, is in the list.
  bool is_converted(std::string_view module) const;
};
// The config that a Hugging Face config.json describes; `file` is named in errors.
Result<HfConfig> config_from_hf(const Json& json, const std::string& file);

// GGUF files of this architecture hold the two halves of each head's q and k rows interleaved.
bool interleaves_qk(std::string_view architecture);

// The same config as GGUF metadata (general.architecture, general.name, <architecture>.*) and as config.json of a
// packed checkpoint (AutoBitLinear convention: multiply) or, when the config is not ternary, a float one.
Status config_to_gguf(const ModelConfig& config, GgufWriter& writer);
Json config_to_hf(const ModelConfig& config);

}  // namespace bitnet
