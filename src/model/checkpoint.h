#pragma once

#include "base/result.h"
#include "format/stored_tensor.h"
#include "kernels/backend.h"
#include "model/config.h"
#include "model/weights.h"
#include "tokenizer/vocabulary.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace bitnet {

class GgufFile;
class TorchArchive;

struct CheckpointOptions {
  bool i2s_arm64 = false;        // the file's I2_S tensors have the layout of bitnet.cpp built on ARM
  bool verify_checksums = true;  // compare what is read with the file's checksum table, if it has one
  bool read_vocabulary = true;   // false: vocabulary() is empty
  bool widen = true;             // float weights of types that no back end multiplies are handed over as F32; false:
                                 // every weight in the type that the file has
  bool keep_latent = false;      // latent weights stay floats instead of being ternarised
  std::string tokenizer_path;    // read the vocabulary from there instead
  std::string pre_tokenizer;     // see TokenizerOptions::pre
};

// A linear layer's weight with everything that its file says about it. Ternary scales are effective multipliers
// (alpha), whichever convention the file uses. A float weight keeps the type that it has in the file.
struct LinearSource {
  std::variant<TernarySource, FloatSource> weight;
  bool quantize_input = true;  // false: this linear sees unquantised activations
  bool latent = false;         // what online quantisation ternarises, left as it is (CheckpointOptions::keep_latent)
  int64_t n_repaired = 0;      // damaged parts of a packed matrix that its parity has restored

  bool ternary() const { return weight.index() == 0; }
};

// A model on disk, checked: a GGUF file, a Hugging Face folder or a checkpoint of Microsoft's GPU scripts. Opening
// reads headers, config and vocabulary only and compares every tensor's name, shape and type with list_weights();
// reading a weight checks its values. q and k rows come in the order of a Hugging Face folder, whatever the file's, so
// that logits do not depend on the file format. Immutable; thread-safe; copies share everything; sources stay valid
// when the Checkpoint is gone.
class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::string& path, const CheckpointOptions& options = {});

  const std::string& path() const;
  bool is_gguf() const;
  const GgufFile* gguf() const;               // null unless it is a GGUF file
  const TorchArchive* torch_archive() const;  // null unless it is a checkpoint of Microsoft's GPU scripts
  uint64_t file_bytes() const;                // of all weight files
  std::string identity() const;  // sizes and times of the weight files: another string when one of them changed
  const ModelConfig& config() const;
  const std::vector<WeightSpec>& weights() const;  // list_weights(config())
  const std::optional<Vocabulary>& vocabulary() const;
  const std::vector<std::string>& notices() const;
  std::string weight_types() const;  // "I2_S 210, F32 121, F16 1"
  // Where a weight of the list lies. Packed Hugging Face linears are U8 [ceil(out / 4), in], tiles of Microsoft's GPU
  // kernels I8 [out, in / 4].
  const StoredTensor& stored(const WeightSpec& spec) const;

  // Kind kVector: finite values.
  Result<std::vector<float>> read_vector(const WeightSpec& spec) const;
  // Kind kLinear. Reads the whole tensor, which the source keeps in memory; float values are finite. Latent weights are
  // ternarised (absmean) where the config says so, exactly ternary float values become ternary codes.
  Result<LinearSource> linear(const WeightSpec& spec) const;
  // Kind kTable: rows are read from the file when asked for and checked for being finite. `verified`: the file's
  // checksum of it has been compared before.
  Result<FloatSource> table(const WeightSpec& spec, bool verified = false) const;

  struct State;

 private:
  explicit Checkpoint(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace bitnet
