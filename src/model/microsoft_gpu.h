#pragma once

#include "base/result.h"
#include "format/torch_archive.h"
#include "model/config.h"
#include "model/weights.h"
#include "tokenizer/vocabulary.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// The archive of Microsoft's GPU scripts that a path means: the file itself, or in a folder without safetensors
// model_state_int2.pt, model_state_fp16.pt or model_state.pt, the first that is there. Nothing for any other path.
std::optional<std::string> find_microsoft_gpu(const std::string& path);

// The vocabulary that belongs to such an archive: in its folder, as of a Hugging Face folder, or tokenizer.model one
// folder above, where the scripts keep it. With the scripts' chat format where it has none. Nothing when there is none.
Result<std::optional<Vocabulary>> vocabulary_of_microsoft_gpu(const std::string& archive, const std::string& pre);

// A checkpoint as the scripts in microsoft/BitNet's gpu folder write it (docs/formats/microsoft-gpu.md), its tensors
// under the names that a Hugging Face folder has: q, k and v, gate and up are rows of one tensor each. A linear layer
// is I8 [out, in / 4], tiles of TernaryLayout::kMsGpu with a scale beside it, or floats [out, in]. q and k rows are in
// the order of GGUF's Llama files (RowOrder::kInterleave). Immutable; thread-safe.
class MicrosoftGpuFile {
 public:
  // Reads the archive's directory and compares the two tables, which costs a pass over both when they are equal.
  static Result<MicrosoftGpuFile> open(const std::string& path);

  const TorchArchive& archive() const { return archive_; }
  const ModelConfig& config() const { return config_; }
  const std::string& config_path() const { return config_path_; }  // of the file that states sizes, or empty
  const std::vector<std::string>& notices() const { return notices_; }
  // By the weight's hf_name or hf_scale_name; its own name says where in the archive it is: "layers.0.x.weight[0:256]".
  const StoredTensor* find(std::string_view hf_name) const;

 private:
  explicit MicrosoftGpuFile(TorchArchive archive) : archive_(std::move(archive)) {}
  Status place(const WeightSpec& spec);
  Status check_others();

  TorchArchive archive_;
  ModelConfig config_;
  std::string config_path_;
  std::vector<std::string> notices_;
  std::map<std::string, StoredTensor, std::less<>> placed_;
  std::vector<std::string> used_;  // the archive's names
};

// What the shapes of such a checkpoint's tensors tell.
struct MicrosoftGpuSizes {
  int64_t n_layers = 0;
  int64_t vocab_size = 0;
  int64_t d_model = 0;
  int64_t d_q = 0;  // n_heads * head_dim
  int64_t d_kv = 0;
  int64_t d_ff = 0;
};
struct MicrosoftGpuConfig {
  ModelConfig config;  // tied_head is not decided yet
  std::string path;    // of the config.json or params.json that was used, or empty
  std::vector<std::string> notices;
};
// The sizes, and for what they do not tell a config.json or params.json in `folder`, or else the published numbers of
// BitNet b1.58 2B4T. Refuses sizes that do not divide. `file` is named in errors.
Result<MicrosoftGpuConfig> config_of_microsoft_gpu(const MicrosoftGpuSizes& sizes, const std::string& folder,
                                                   const std::string& file);

}  // namespace bitnet
