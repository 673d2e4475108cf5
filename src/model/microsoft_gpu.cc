#include "model/microsoft_gpu.h"

#include "base/checked.h"
#include "format/text.h"
#include "model/checkpoint_state.h"
#include "model/unknown_names.h"
#include "tokenizer/chat_template.h"

#include <algorithm>
#include <array>
#include <filesystem>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPiece_bytes = uint64_t{4} << 20;
constexpr int64_t kTileRows = 16, kTileCols = 32, kValuesAByte = 4, kScales = 4;
constexpr const char* kEmbedding = "tok_embeddings.weight";
constexpr const char* kHead = "output.weight";

// Where a weight is: rows [row_begin, row_begin + its own) of a tensor of n_rows, part `part` of it.
struct Place {
  std::string name;
  int64_t n_rows = 0, row_begin = 0, part = 0;
};

Place place_of(const ModelConfig& c, const WeightSpec& spec) {
  const int64_t n = spec.shape[0], d_q = c.n_heads * c.head_dim, d_kv = c.n_kv_heads * c.head_dim;
  const auto layer = [&](const char* name) { return fmt::format("layers.{}.{}.weight", spec.layer, name); };
  switch (spec.role) {
    case WeightRole::kTokenEmbedding: return {kEmbedding, n};
    case WeightRole::kOutput: return {kHead, n};
    case WeightRole::kOutputNorm: return {"norm.weight", n};
    case WeightRole::kAttnNorm: return {layer("attention_norm"), n};
    case WeightRole::kQ: return {layer("attention.wqkv"), d_q + 2 * d_kv, 0, 0};
    case WeightRole::kK: return {layer("attention.wqkv"), d_q + 2 * d_kv, d_q, 1};
    case WeightRole::kV: return {layer("attention.wqkv"), d_q + 2 * d_kv, d_q + d_kv, 2};
    case WeightRole::kAttnSubNorm: return {layer("attention.attn_sub_norm"), n};
    case WeightRole::kO: return {layer("attention.wo"), n};
    case WeightRole::kFfnNorm: return {layer("ffn_norm"), n};
    case WeightRole::kGate: return {layer("feed_forward.w13"), 2 * n, 0, 0};
    case WeightRole::kUp: return {layer("feed_forward.w13"), 2 * n, n, 1};
    case WeightRole::kFfnSubNorm: return {layer("feed_forward.ffn_sub_norm"), n};
    case WeightRole::kDown: return {layer("feed_forward.w2"), n};
    default: return {};  // norms in front of single linears, which the config never has
  }
}

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

Error missing(const TorchArchive& archive, const std::string& name) {
  return invalid_input("{}: tensor {} is missing", archive.name(), name);
}

// A matrix that is there, and its columns once unpacked.
struct Matrix {
  int64_t n_rows = 0, n_cols = 0;
};
Result<Matrix> matrix_of(const TorchArchive& archive, const std::string& name) {
  const StoredTensor* tensor = archive.find(name);
  if (tensor == nullptr) return missing(archive, name);
  if (tensor->shape.size() != 2) {
    return invalid_input("{}: tensor {} has shape {}, expected a matrix", archive.name(), quote_name(name),
                         shape_string(tensor->shape));
  }
  const bool packed = tensor->dtype == DType::kI8;
  const auto n_cols = packed ? checked_mul(uint64_t(tensor->shape[1]), kValuesAByte) : uint64_t(tensor->shape[1]);
  if (!n_cols || *n_cols > uint64_t(INT64_MAX)) {
    return invalid_input("{}: tensor {} has shape {}, which is too wide", archive.name(), quote_name(name),
                         shape_string(tensor->shape));
  }
  return Matrix{tensor->shape[0], int64_t(*n_cols)};
}

// One more than the largest N of "layers.N.".
int64_t count_layers(const TorchArchive& archive) {
  constexpr std::string_view kLayers = "layers.";
  int64_t n_layers = 0;
  for (const StoredTensor& tensor : archive.tensors()) {
    if (!tensor.name.starts_with(kLayers)) continue;
    int64_t layer = 0;
    for (size_t i = kLayers.size(); i < tensor.name.size() && tensor.name[i] >= '0' && tensor.name[i] <= '9'; ++i) {
      layer = std::min<int64_t>(layer * 10 + (tensor.name[i] - '0'), 1'000'000);
    }
    n_layers = std::max(n_layers, layer + 1);
  }
  return n_layers;
}

Result<MicrosoftGpuSizes> sizes_of(const TorchArchive& archive) {
  if (archive.find(kEmbedding) == nullptr) {
    return unsupported(
        "{}: is a PyTorch archive of {} tensors, but has no {}; of such archives only those of Microsoft's GPU scripts "
        "(model_state_int2.pt) are read",
        archive.name(), archive.tensors().size(), kEmbedding);
  }
  const std::string layer = "layers.0.";
  BN_ASSIGN_OR_RETURN(const Matrix embedding, matrix_of(archive, kEmbedding));
  BN_ASSIGN_OR_RETURN(const Matrix qkv, matrix_of(archive, layer + "attention.wqkv.weight"));
  BN_ASSIGN_OR_RETURN(const Matrix o, matrix_of(archive, layer + "attention.wo.weight"));
  BN_ASSIGN_OR_RETURN(const Matrix down, matrix_of(archive, layer + "feed_forward.w2.weight"));
  if (qkv.n_rows <= o.n_cols || (qkv.n_rows - o.n_cols) % 2 != 0) {
    return invalid_input(
        "{}: attention.wqkv of {} rows does not hold {} rows of queries, as attention.wo says, and as many rows of "
        "keys as of values",
        archive.name(), qkv.n_rows, o.n_cols);
  }
  return MicrosoftGpuSizes{count_layers(archive),       embedding.n_rows, embedding.n_cols, o.n_cols,
                           (qkv.n_rows - o.n_cols) / 2, down.n_cols};
}

// Whether two tensors hold the same bytes. Scripts write the tied table twice.
Result<bool> same_bytes(const TorchArchive& archive, const StoredTensor& a, const StoredTensor& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  if (a.offset_bytes == b.offset_bytes) return true;
  std::vector<std::byte> left(static_cast<size_t>(std::min(kPiece_bytes, a.size_bytes))), right(left.size());
  for (uint64_t at = 0; at < a.size_bytes; at += kPiece_bytes) {
    const auto n = static_cast<size_t>(std::min(kPiece_bytes, a.size_bytes - at));
    BN_RETURN_IF_ERROR(archive.read(a, at, std::span(left).first(n)));
    BN_RETURN_IF_ERROR(archive.read(b, at, std::span(right).first(n)));
    if (!std::equal(left.begin(), left.begin() + int64_t(n), right.begin())) return false;
  }
  return true;
}

// Rows of a tensor as a tensor, named as Python would slice it.
StoredTensor rows_of(const StoredTensor& tensor, int64_t begin, int64_t n_rows) {
  if (begin == 0 && n_rows == tensor.shape[0]) return tensor;
  const uint64_t row_bytes = tensor.size_bytes / uint64_t(tensor.shape[0]);
  StoredTensor part = tensor;
  part.name = fmt::format("{}[{}:{}]", tensor.name, begin, begin + n_rows);
  part.shape[0] = n_rows;
  part.offset_bytes += uint64_t(begin) * row_bytes;
  part.size_bytes = uint64_t(n_rows) * row_bytes;
  return part;
}

// Tiles of 16 rows follow each other, so that any multiple of 16 rows is a matrix of its own.
Status check_tiles(const TorchArchive& archive, const StoredTensor& tensor, const Place& place,
                   const WeightSpec& spec) {
  if (place.row_begin % kTileRows == 0 && spec.shape[0] % kTileRows == 0 && spec.shape[1] % kTileCols == 0) return ok();
  return unsupported("{}: rows {} to {} of tensor {} in {} columns are not whole tiles of {} rows and {} columns",
                     archive.name(), place.row_begin, place.row_begin + spec.shape[0], quote_name(tensor.name),
                     spec.shape[1], kTileRows, kTileCols);
}

}  // namespace

std::optional<std::string> find_microsoft_gpu(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return is_zip_archive(path) ? std::optional(path) : std::nullopt;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (fs::exists(path + "/" + name, error)) return std::nullopt;
  }
  for (const char* name : {"model_state_int2.pt", "model_state_fp16.pt", "model_state.pt"}) {
    const std::string file = path + "/" + name;
    if (fs::exists(file, error)) return file;
  }
  return std::nullopt;
}

Result<std::optional<Vocabulary>> vocabulary_of_microsoft_gpu(const std::string& archive, const std::string& pre) {
  const std::string folder = folder_of(archive), above = folder + "/../tokenizer.model";
  BN_ASSIGN_OR_RETURN(auto vocabulary, vocabulary_from_folder(folder, pre));
  std::error_code error;
  if (!vocabulary && fs::exists(above, error)) {
    BN_ASSIGN_OR_RETURN(vocabulary, vocabulary_from_tiktoken(above, pre));
    vocabulary->notices.push_back(fmt::format("the vocabulary is {}", above));
  }
  if (vocabulary && vocabulary->chat_template.empty() && vocabulary->eot_id) {
    vocabulary->chat_template = kBitNet2b4tTemplate;
  }
  return vocabulary;
}

Result<MicrosoftGpuFile> MicrosoftGpuFile::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(TorchArchive archive, TorchArchive::open(path));
  MicrosoftGpuFile file(std::move(archive));
  BN_ASSIGN_OR_RETURN(const MicrosoftGpuSizes sizes, sizes_of(file.archive_));
  BN_ASSIGN_OR_RETURN(MicrosoftGpuConfig found, config_of_microsoft_gpu(sizes, folder_of(path), path));
  file.config_ = std::move(found.config);
  file.config_path_ = std::move(found.path);
  file.notices_ = std::move(found.notices);
  const StoredTensor* head = file.archive_.find(kHead);
  if (head == nullptr) return missing(file.archive_, kHead);
  BN_ASSIGN_OR_RETURN(file.config_.tied_head, same_bytes(file.archive_, *file.archive_.find(kEmbedding), *head));
  file.used_.push_back(kHead);
  for (const WeightSpec& spec : list_weights(file.config_)) BN_RETURN_IF_ERROR(file.place(spec));
  BN_RETURN_IF_ERROR(file.check_others());
  return file;
}

Status MicrosoftGpuFile::place(const WeightSpec& spec) {
  const Place place = place_of(config_, spec);
  const StoredTensor* tensor = archive_.find(place.name);
  if (tensor == nullptr) return missing(archive_, place.name);
  const bool linear = spec.kind == WeightKind::kLinear, packed = linear && tensor->dtype == DType::kI8;
  Shape expected = spec.shape;
  expected[0] = place.n_rows;
  if (packed) {
    BN_RETURN_IF_ERROR(check_tiles(archive_, *tensor, place, spec));
    expected[1] /= kValuesAByte;
  } else if (linear && !is_float_type(tensor->dtype)) {
    return unsupported("{}: tensor {} has type {}, expected I8 (tiles of packed weights) or floats", archive_.name(),
                       quote_name(place.name), dtype_info(tensor->dtype).name);
  }
  if (tensor->shape != expected) {
    return invalid_input("{}: tensor {} has shape {}, expected {}", archive_.name(), quote_name(place.name),
                         shape_string(tensor->shape), shape_string(expected));
  }
  placed_.emplace(spec.hf_name, rows_of(*tensor, place.row_begin, spec.shape[0]));
  used_.push_back(place.name);
  if (!packed) return ok();
  const std::string scale_name = place.name + "_scale";
  const StoredTensor* scale = archive_.find(scale_name);
  if (scale == nullptr) return missing(archive_, scale_name);
  if (scale->shape != Shape{kScales} || !is_float_type(scale->dtype)) {
    return invalid_input("{}: tensor {} is {} {}, expected {} floats", archive_.name(), quote_name(scale_name),
                         dtype_info(scale->dtype).name, shape_string(scale->shape), kScales);
  }
  placed_.emplace(spec.hf_scale_name, rows_of(*scale, place.part, 1));
  used_.push_back(scale_name);
  return ok();
}

// Tensors of a layer and scales take part in the mathematics of the checkpoint that has them.
Status MicrosoftGpuFile::check_others() {
  std::sort(used_.begin(), used_.end());
  std::vector<std::string> unknown;
  for (const StoredTensor& tensor : archive_.tensors()) {
    if (std::binary_search(used_.begin(), used_.end(), tensor.name)) continue;
    if (tensor.name.starts_with("layers.") || tensor.name.ends_with("_scale") || tensor.name.ends_with(".bias")) {
      return unsupported("{}: tensor {} cannot be ignored: the graph of these checkpoints has no such weight",
                         archive_.name(), quote_name(tensor.name));
    }
    unknown.push_back(tensor.name);
  }
  note_unknown("tensor", unknown, notices_);
  return ok();
}

const StoredTensor* MicrosoftGpuFile::find(std::string_view hf_name) const {
  const auto found = placed_.find(hf_name);
  return found == placed_.end() ? nullptr : &found->second;
}

}  // namespace bitnet
