#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "model/weights.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Low-rank adapters (LoRA, Hu et al. 2021) of a frozen model, in the layout of PEFT: a folder with adapter_config.json
// and adapter_model.safetensors. A linear with an adapter gives y = linear(x) + scale * B (A x), A [rank, n_in],
// B [n_out, rank], x its input before any rounding (docs/numerics.md, 18).
namespace bitnet {

// The linears of a layer that may have an adapter, in the graph's order: "q" is PEFT's "q_proj".
struct LoraTarget {
  WeightRole role;
  const char* name;
  const char* module;
};
std::span<const LoraTarget> lora_targets();
// "q,v" or "q_proj,v_proj", each once; refuses a name that is none by name.
Result<std::vector<WeightRole>> parse_lora_targets(std::string_view names);

// What of a base an adapter is tied to.
struct LoraBase {
  std::string shape;     // "6 layers, d_model 384, d_ff 1024, 6 heads, 6 key/value heads, 4096 tokens"
  std::string checksum;  // 16 hexadecimal digits
};
std::string lora_base_shape(const ModelConfig& config);
// The checksum is over every linear's codes and scales (or floats) and every norm, in a folder's order, so that all
// files of a model have the same. Tables are left out: an embedding stored in fewer bits is still the base. Reads all
// linears.
Result<LoraBase> lora_base_of(const Checkpoint& base, ThreadPool& pool);

// PEFT's files, and our keys in the metadata of the second.
inline constexpr const char* kLoraConfigName = "adapter_config.json";
inline constexpr const char* kLoraWeightsName = "adapter_model.safetensors";
inline constexpr const char* kLoraShapeKey = "bitnet.base.shape";
inline constexpr const char* kLoraChecksumKey = "bitnet.base.checksum";

// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" of a linear.
std::string lora_a_name(const WeightSpec& linear);
std::string lora_b_name(const WeightSpec& linear);

// The adapter of one linear.
struct LoraPair {
  WeightSpec linear;
  std::vector<float> a;  // [rank, n_in]
  std::vector<float> b;  // [n_out, rank]
};
struct LoraAdapter {
  std::string path;  // of the safetensors file
  int64_t rank = 0;
  double scale = 1;  // alpha / rank, or alpha / sqrt(rank) (rslora)
  LoraBase base;     // empty where the file does not say
  std::vector<LoraPair> pairs;

  // Null for a linear that stays as it is.
  const LoraPair* find(WeightRole role, int64_t layer) const;
};

// Reads an adapter for `base`: a folder, or its safetensors file, with F32, F16 or BF16 values. Refuses by name what
// the base does not have, wrong shapes, values that are not finite, an A without its B, settings of PEFT that mean
// another function, and an adapter that says it belongs to another base.
Result<LoraAdapter> read_lora_adapter(const std::string& path, const Checkpoint& base, ThreadPool& pool);

// What write_lora_adapter() writes beside the values.
struct LoraFile {
  std::string base_path;
  LoraBase base;
  int64_t rank = 0;
  double alpha = 0;
  std::vector<WeightRole> targets;
};
struct LoraValues {
  const WeightSpec* linear;
  const float* a;
  const float* b;
};
// Files of an earlier export are replaced, adapter_config.json last.
Status write_lora_adapter(const LoraFile& file, std::span<const LoraValues> values, const std::string& folder);

}  // namespace bitnet
