#pragma once

#include "format/gguf.h"
#include "format/gguf_checksums.h"
#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "model/microsoft_gpu.h"
#include "model/row_order.h"
#include "quant/ternary.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// Inside of Checkpoint, shared by its .cc files.
namespace bitnet {

// Metadata of files that `bitnet convert --type packed` writes: linears are I8 [bytes], packed matrices
// (format/packed_ternary.h). The version, a u32.
inline constexpr const char* kPackedKey = "bitnet.packed.version";
// Metadata of files that `bitnet quantize` writes: the schemes, an array of strings with one entry a tensor in file
// order. Such a file may hold float linears where others must not.
inline constexpr const char* kSchemesKey = "bitnet.quantization.schemes";

// A tensor and the file that holds it; `file` is null in a checkpoint that is one file.
struct LocatedTensor {
  const StoredTensor* tensor = nullptr;
  const SafetensorsFile* file = nullptr;
  explicit operator bool() const { return tensor != nullptr; }
};

// Bytes of one tensor, shared by the readers that decode them; not zeroed first.
struct TensorBytes {
  std::shared_ptr<std::byte[]> data;
  size_t size_bytes = 0;
  std::span<const std::byte> span() const { return {data.get(), size_bytes}; }
};

struct Checkpoint::State {
  std::string path;
  CheckpointOptions options;
  std::optional<GgufFile> gguf;  // one of the three
  std::optional<SafetensorsFolder> folder;
  std::optional<MicrosoftGpuFile> microsoft;
  ModelConfig config;
  RowOrder qk_order;  // from the file's q and k rows to a folder's
  HfConfig hf;        // how linears are stored where the file is no GGUF
  std::vector<WeightSpec> weights;
  std::optional<Vocabulary> vocabulary;
  std::vector<std::string> notices;
  GgufChecksums checksums;
  std::vector<float> exact_scales;  // one a GGUF tensor where the file has our valid table of them, 0: no statement

  bool is_gguf() const { return gguf.has_value(); }
  LocatedTensor find(std::string_view name) const;
  LocatedTensor find_weight(const WeightSpec& spec) const;
  LocatedTensor find_scale(const WeightSpec& spec) const;  // beside a linear
  // "model.gguf: tensor blk.0.attn_q.weight": how every error about a tensor begins.
  std::string label(const LocatedTensor& tensor) const;

  Status read(const LocatedTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const;
  // All bytes, compared with the checksum table.
  Result<TensorBytes> read_all(const LocatedTensor& tensor) const;
  // Compares a tensor too large to hold with the checksum table, piece by piece.
  Status verify_in_pieces(const LocatedTensor& tensor) const;
  // A tensor of one float: a scale.
  Result<float> read_scalar(const LocatedTensor& tensor) const;
  // True when a linear is ternary by the file's word: not in a folder's list of modules that stay float.
  bool is_converted(const WeightSpec& spec) const;
  // A linear that is kept as a packed matrix.
  bool is_packed(const StoredTensor& tensor) const {
    return tensor.dtype == DType::kI8 && gguf && gguf->metadata().contains(kPackedKey);
  }
  // A linear that is kept in the tiles of Microsoft's GPU kernels.
  bool is_tiled(const StoredTensor& tensor) const { return tensor.dtype == DType::kI8 && microsoft.has_value(); }
  // The file of a checkpoint or of one of its tensors; null for a file held in memory.
  const std::string& file_name(const LocatedTensor& tensor) const;
  const std::shared_ptr<const File>& file_of(const LocatedTensor& tensor) const;
};

// Metadata of ours, an array of f32 with one entry a ternary tensor in file order: the float32 scale of which the
// float16 scales of TQ1_0 and TQ2_0 blocks are a rounding, or 0 where blocks differ.
inline constexpr const char* kExactScalesKey = "bitnet.ternary.scales";

// checkpoint_check.cc: every weight of the list is there with the right shape and a type that can be read; tensors
// that are not in the list are noted, or refused where the graph would need them.
Status check_tensors(const Checkpoint::State& state, std::vector<std::string>& notices);
// A vocabulary of another length than the embedding, which may have a few rows of padding.
Status check_vocabulary(const Checkpoint::State& state, std::vector<std::string>& notices);

// The table kExactScalesKey as one entry a tensor of the file; empty when there is none.
Result<std::vector<float>> read_exact_scales(const GgufFile& file);

bool is_float_type(DType type);     // F32, F16, BF16
bool has_products(DType type);      // these and the block types that a FloatSource may have
bool is_readable_type(DType type);  // everything that has a value as a float: a table's types, and a linear's

// The same weight as F32 where no back end multiplies with its type.
FloatSource widened(FloatSource source);

// Index of a value (or of the first value of a block) that is NaN or infinite, in whole blocks of a FloatSource's type.
std::optional<int64_t> find_nonfinite(DType type, std::span<const std::byte> bytes);

}  // namespace bitnet
