#include "model/weights.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace bitnet {
namespace {

WeightSpec outside_layers(WeightRole role, WeightKind kind, Shape shape, const char* gguf, const char* hf) {
  WeightSpec spec;
  spec.role = role;
  spec.kind = kind;
  spec.shape = std::move(shape);
  spec.gguf_name = gguf;
  spec.hf_name = hf;
  return spec;
}

// Adds the weights of one layer; names are those after "blk.N." and "model.layers.N.".
class LayerList {
 public:
  LayerList(const ModelConfig& config, int64_t layer, std::vector<WeightSpec>& specs)
      : config_(config),
        specs_(specs),
        layer_(layer),
        gguf_(fmt::format("blk.{}.", layer)),
        hf_(fmt::format("model.layers.{}.", layer)) {}

  void vector(WeightRole role, int64_t n, std::string_view gguf, std::string_view hf, std::string_view hf_older = {}) {
    WeightSpec spec;
    spec.role = role;
    spec.kind = WeightKind::kVector;
    spec.layer = layer_;
    spec.shape = {n};
    spec.gguf_name = fmt::format("{}{}.weight", gguf_, gguf);
    spec.hf_name = fmt::format("{}{}.weight", hf_, hf);
    if (!hf_older.empty()) spec.hf_older_name = fmt::format("{}{}.weight", hf_, hf_older);
    specs_.push_back(std::move(spec));
  }

  void linear(WeightRole role, WeightRole input_norm, int64_t n_out, int64_t n_in, std::string_view gguf,
              std::string_view hf) {
    if (config_.input_norms) vector(input_norm, n_in, fmt::format("{}_norm_in", gguf), fmt::format("{}.rms_norm", hf));
    WeightSpec spec;
    spec.role = role;
    spec.kind = WeightKind::kLinear;
    spec.layer = layer_;
    spec.shape = {n_out, n_in};
    spec.gguf_name = fmt::format("{}{}.weight", gguf_, gguf);
    spec.hf_name = fmt::format("{}{}.weight", hf_, hf);
    spec.gguf_scale_name = fmt::format("{}{}.scale", gguf_, gguf);
    spec.hf_scale_name = fmt::format("{}{}.weight_scale", hf_, hf);
    specs_.push_back(std::move(spec));
  }

 private:
  const ModelConfig& config_;
  std::vector<WeightSpec>& specs_;
  int64_t layer_;
  std::string gguf_, hf_;
};

void add_layer(const ModelConfig& c, int64_t layer, std::vector<WeightSpec>& specs) {
  using R = WeightRole;
  const int64_t d_q = c.n_heads * c.head_dim, d_kv = c.n_kv_heads * c.head_dim;
  LayerList list(c, layer, specs);
  list.vector(R::kAttnNorm, c.d_model, "attn_norm", "input_layernorm");
  list.linear(R::kQ, R::kQInputNorm, d_q, c.d_model, "attn_q", "self_attn.q_proj");
  list.linear(R::kK, R::kKInputNorm, d_kv, c.d_model, "attn_k", "self_attn.k_proj");
  list.linear(R::kV, R::kVInputNorm, d_kv, c.d_model, "attn_v", "self_attn.v_proj");
  if (c.sub_norms) {
    list.vector(R::kAttnSubNorm, d_q, "attn_sub_norm", "self_attn.attn_sub_norm", "self_attn.inner_attn_ln");
  }
  list.linear(R::kO, R::kOInputNorm, c.d_model, d_q, "attn_output", "self_attn.o_proj");
  list.vector(R::kFfnNorm, c.d_model, "ffn_norm", "post_attention_layernorm");
  list.linear(R::kGate, R::kGateInputNorm, c.d_ff, c.d_model, "ffn_gate", "mlp.gate_proj");
  list.linear(R::kUp, R::kUpInputNorm, c.d_ff, c.d_model, "ffn_up", "mlp.up_proj");
  if (c.sub_norms) list.vector(R::kFfnSubNorm, c.d_ff, "ffn_sub_norm", "mlp.ffn_sub_norm", "mlp.ffn_layernorm");
  list.linear(R::kDown, R::kDownInputNorm, c.d_model, c.d_ff, "ffn_down", "mlp.down_proj");
}

}  // namespace

std::vector<WeightSpec> list_weights(const ModelConfig& c) {
  std::vector<WeightSpec> specs;
  const Shape table = {c.vocab_size, c.d_model};
  specs.push_back(outside_layers(WeightRole::kTokenEmbedding, WeightKind::kTable, table, "token_embd.weight",
                                 "model.embed_tokens.weight"));
  for (int64_t layer = 0; layer < c.n_layers; ++layer) add_layer(c, layer, specs);
  specs.push_back(outside_layers(WeightRole::kOutputNorm, WeightKind::kVector, {c.d_model}, "output_norm.weight",
                                 "model.norm.weight"));
  if (!c.tied_head) {
    specs.push_back(outside_layers(WeightRole::kOutput, WeightKind::kTable, table, "output.weight", "lm_head.weight"));
  }
  return specs;
}

int64_t count_parameters(const ModelConfig& config) {
  int64_t n = 0;
  for (const WeightSpec& spec : list_weights(config)) n += spec.n_values();
  return n;
}

}  // namespace bitnet
