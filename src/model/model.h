#pragma once

#include "bitnet/model.h"
#include "kernels/backend.h"
#include "kernels/fused_model.h"
#include "model/config.h"
#include "model/imposed_density.h"
#include "model/weight_cache.h"
#include "model/weights.h"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bitnet {

// A norm's weights in the back end's memory.
struct Vector {
  Buffer memory;
  std::span<const float> view() const { return {memory.as<float>(), memory.size_bytes() / sizeof(float)}; }
  // Null when empty.
  const float* data() const { return memory.as<float>(); }
};

// What an adapter adds to a linear's output: b (a x), the adapter's scale being in b. Null: nothing.
struct LoraLayer {
  std::unique_ptr<Matrix> a, b;  // [rank, n_cols], [n_rows, rank]
};

struct LinearLayer {
  std::unique_ptr<Matrix> weight;
  LoraLayer lora;
  Vector input_norm;           // [n_cols] or empty
  bool quantize_input = true;  // false: a layer that the file keeps in floats, inputs too
};

struct LayerWeights {
  Vector attn_norm, attn_sub_norm, ffn_norm, ffn_sub_norm;  // sub-norms empty where there are none
  LinearLayer q, k, v, o, gate, up, down;
};

// What a Model points to; filled by Model::load and never changed afterwards.
struct ModelImpl {
  ModelConfig config;
  ModelInfo info;
  bool act_quant = true;
  int64_t lora_rank = 0;   // of an adapter; 0: there is none
  bool sparse_ffn = true;  // up and down are laid out for products that leave out what contributes nothing
  std::optional<ImposedDensities> imposed;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<WeightCache> cache;       // what the matrices may point into
  std::unique_ptr<Matrix> token_embedding;  // [vocab_size, d_model]
  std::unique_ptr<Matrix> output;           // [vocab_size, d_model]; null when the head is tied
  Vector output_norm;
  std::vector<LayerWeights> layers;
  std::unique_ptr<FusedModel> fused;  // runs the layers above as a whole; null: forward() runs their operations
  std::optional<Tokenizer> tokenizer;
};

struct LoraAdapter;

// A linear's own layer, for its weight and for the norm in front of it.
LinearLayer& linear_of(LayerWeights& layer, WeightRole role);

// Puts an adapter's matrices, times `scale`, beside the linears that it changes.
Status attach_lora(const LoraAdapter& adapter, double scale, ThreadPool& pool, ModelImpl& model);

// What measurements change in a model.
struct MeasuringOptions {
  std::unique_ptr<Backend> backend;           // instead of options.device, unless null
  double gate_density = 0, down_density = 0;  // imposed, unless 0
};
Result<Model> load_model(const std::string& path, const LoadOptions& options, MeasuringOptions measuring);

}  // namespace bitnet
