#pragma once

#include "bitnet/result.h"
#include "bitnet/tokenizer.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bitnet {

struct ModelImpl;
class Session;
struct SessionOptions;

// How the output head, a model's largest matrix, is kept. No result depends on it.
enum class HeadMode : uint8_t {
  kAuto,       // kCertified where the head is large
  kFull,       // in memory, every logit computed: fastest where all logits are wanted
  kCertified,  // a coarse copy in memory finds the best logits, whose exact values are computed from rows that stay in
               // the file; the rest of the head is fetched when all logits are first wanted
};

// The file beside a model that keeps its weights as they are laid out in memory ("model.gguf.base3.cache"): loading
// maps it instead of laying them out again, and processes share it. No result depends on it. It is used only as long as
// the model's files have the sizes and times that they had; whoever shortens it while it is mapped ends the process.
enum class CacheMode : uint8_t {
  kAuto,   // used where it is there
  kWrite,  // made anew
  kOff,
};

struct LoadOptions {
  std::string device = "cpu";    // "cpu", "cuda", "cuda:N" or "reference"
  int n_threads = 0;             // for loading; 0: all processors of this process
  bool i2s_arm64 = false;        // the file's I2_S tensors have the layout of bitnet.cpp built on ARM
  bool act_quant = true;         // false: unquantised activations, to tell rounding from errors
  bool verify_checksums = true;  // compare tensors with the file's checksum table, if it has one
  HeadMode head = HeadMode::kAuto;
  CacheMode cache = CacheMode::kAuto;
  bool sparse_ffn = true;      // generating, leave out what squared ReLU makes zero; no result depends on it
  std::string tokenizer_path;  // instead of the model's own vocabulary
  std::string pre_tokenizer;   // see TokenizerOptions::pre
  std::string lora;            // a low-rank adapter: PEFT's folder or its safetensors file; empty: none
  double lora_scale = 1;       // times what the adapter adds
  // Called with the share done, rising to 1, after each weight: by one thread at a time, not always the caller's own.
  // May be empty.
  std::function<void(double done)> on_progress;
};

// What a loaded model is. All sizes in the field's usual words.
struct ModelInfo {
  std::string path, name, architecture;
  int64_t n_layers = 0, d_model = 0, d_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, vocab_size = 0;
  int64_t n_ctx_train = 0;
  int64_t n_parameters = 0;
  std::string weight_types;  // "I2_S 210, F32 121, F16 1"
  uint64_t file_bytes = 0;
  uint64_t memory_bytes = 0;         // of prepared weights
  uint64_t bytes_per_token = 0;      // weights read to generate one token, at most
  uint64_t ops_per_token = 0;        // multiplications and additions of the linear layers for one prompt token
  std::string device, kernels;       // "cpu", "avx512vnni"
  std::vector<std::string> notices;  // what a user should know: ignored tensors, replaced chat template
};

// A model's weights and vocabulary, ready to run. Immutable; thread-safe; copies share the weights.
class Model {
 public:
  // A GGUF file, a Hugging Face folder, a checkpoint of Microsoft's GPU scripts (model_state_int2.pt or its folder), or
  // the name of a model in the folder $BITNET_MODELS or ./models.
  static Result<Model> load(const std::string& path, const LoadOptions& options = {});

  const ModelInfo& info() const;
  // Null when the file carries no vocabulary: such a model runs on token ids.
  const Tokenizer* tokenizer() const;
  // Memory for one sequence of tokens. Sessions of one model may run on different threads at once.
  Result<Session> new_session(const SessionOptions& options) const;
  Result<Session> new_session() const;

  explicit Model(std::shared_ptr<const ModelImpl> impl) : impl_(std::move(impl)) {}
  const std::shared_ptr<const ModelImpl>& impl() const { return impl_; }

 private:
  std::shared_ptr<const ModelImpl> impl_;
};

}  // namespace bitnet
