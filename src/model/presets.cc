#include "model/presets.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace bitnet {
namespace {

enum class Family : uint8_t { kBitNet, kBitNetSilu, kLlama };

struct Preset {
  const char* name;
  const char* model;
  Family family;
  int64_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size, n_ctx;
  double rope_theta;
  float rms_eps;
};

// From the published config.json files; Falcon-E from its file sizes and the configs of models derived from it.
constexpr std::array kPresets = std::to_array<Preset>({
    {"2b4t", "BitNet b1.58 2B4T", Family::kBitNet, 30, 2560, 6912, 20, 5, 128, 128256, 4096, 500000, 1e-5f},
    {"700m", "bitnet_b1_58-large", Family::kBitNetSilu, 24, 1536, 4096, 16, 16, 96, 32002, 2048, 10000, 1e-5f},
    {"3b", "bitnet_b1_58-3B", Family::kBitNetSilu, 26, 3200, 8640, 32, 32, 100, 32002, 2048, 10000, 1e-5f},
    {"llama3-8b", "Llama3-8B-1.58", Family::kLlama, 32, 4096, 14336, 32, 8, 128, 128256, 8192, 500000, 1e-5f},
    {"falcon3-1b", "Falcon3-1B-1.58bit", Family::kLlama, 18, 2048, 8192, 8, 4, 256, 131072, 8192, 1000042, 1e-6f},
    {"falcon3-3b", "Falcon3-3B-1.58bit", Family::kLlama, 22, 3072, 9216, 12, 4, 256, 131072, 32768, 1000042, 1e-6f},
    {"falcon3-7b", "Falcon3-7B-1.58bit", Family::kLlama, 28, 3072, 23040, 12, 4, 256, 131072, 32768, 1000042, 1e-6f},
    {"falcon3-10b", "Falcon3-10B-1.58bit", Family::kLlama, 40, 3072, 23040, 12, 4, 256, 131072, 32768, 1000042, 1e-6f},
    {"falcon-e-1b", "Falcon-E-1B", Family::kLlama, 24, 2048, 9216, 16, 2, 128, 32768, 32768, 1000000, 1e-5f},
    {"falcon-e-3b", "Falcon-E-3B", Family::kLlama, 32, 2048, 13312, 16, 2, 128, 32768, 32768, 1000000, 1e-5f},
    {"tiny", "tiny", Family::kBitNet, 2, 256, 768, 4, 2, 64, 512, 256, 10000, 1e-5f},
});

ModelConfig to_config(const Preset& p) {
  const bool llama = p.family == Family::kLlama;
  ModelConfig config;
  config.architecture = llama ? "llama" : p.family == Family::kBitNet ? "bitnet-b1.58" : "bitnet";
  config.name = std::string(p.model) + " (random weights)";
  config.n_layers = p.n_layers;
  config.d_model = p.d_model;
  config.d_ff = p.d_ff;
  config.n_heads = p.n_heads;
  config.n_kv_heads = p.n_kv_heads;
  config.head_dim = config.rope_dim = p.head_dim;
  config.vocab_size = p.vocab_size;
  config.n_ctx_train = p.n_ctx;
  config.rope_theta = p.rope_theta;
  config.rms_eps = p.rms_eps;
  config.gate_activation = p.family == Family::kBitNet ? GateActivation::kRelu2 : GateActivation::kSilu;
  config.sub_norms = !llama;
  config.tied_head = !llama;
  return config;
}

}  // namespace

Result<ModelConfig> preset_config(std::string_view name) {
  const auto preset =
      std::find_if(kPresets.begin(), kPresets.end(), [name](const Preset& p) { return p.name == name; });
  if (preset != kPresets.end()) return to_config(*preset);
  return invalid_argument("there is no preset \"{}\"; there are {}", name, fmt::join(preset_names(), ", "));
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

}  // namespace bitnet
