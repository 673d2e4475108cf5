#include "train/checkpoint_file.h"

#include "format/checksum.h"
#include "format/text.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <numeric>

namespace bitnet {
namespace {

constexpr std::string_view kFormat = "bitnet-checkpoint";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kChecksumTensor = "checkpoint.checksum";  // U8 [8], the last bytes of the file
constexpr uint64_t kChecksum_bytes = 8;
constexpr size_t kReadBlock_bytes = size_t{4} << 20;
constexpr std::string_view kPrefix = "step-", kSuffix = ".safetensors";
constexpr size_t kStepDigits = 12;

std::string metadata_of(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? std::string() : found->second;
}

std::optional<int64_t> parse_step(std::string_view text) {
  int64_t step = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (error != std::errc() || end != text.data() + text.size() || step < 0) return std::nullopt;
  return step;
}

Result<uint64_t> checksum_of_start(const SafetensorsFile& file, std::span<const std::byte> in_memory,
                                   uint64_t n_bytes) {
  if (!file.file()) return checksum_of(in_memory.first(size_t(n_bytes)));
  Checksum checksum;
  std::vector<std::byte> block(size_t(std::min<uint64_t>(n_bytes, kReadBlock_bytes)));
  for (uint64_t offset = 0; offset < n_bytes;) {
    const auto part = std::span(block).first(size_t(std::min<uint64_t>(n_bytes - offset, block.size())));
    BN_RETURN_IF_ERROR(file.file()->read_at(offset, part));
    checksum.update(part);
    offset += part.size();
  }
  return checksum.value();
}

// The file's last tensor must be the checksum of everything before it.
Status check_bytes(const SafetensorsFile& file, std::span<const std::byte> in_memory) {
  const StoredTensor* stored = file.find(kChecksumTensor);
  if (stored == nullptr || stored->dtype != DType::kU8 || stored->size_bytes != kChecksum_bytes ||
      stored->offset_bytes + kChecksum_bytes != file.size_bytes()) {
    return invalid_input("{}: is no checkpoint: the tensor {} is not the last one", file.name(), kChecksumTensor);
  }
  uint64_t expected = 0;
  BN_RETURN_IF_ERROR(file.read(*stored, 0, std::as_writable_bytes(std::span(&expected, 1))));
  BN_ASSIGN_OR_RETURN(const uint64_t found, checksum_of_start(file, in_memory, stored->offset_bytes));
  if (found != expected) {
    return invalid_input("{}: is damaged: the checksum of its bytes is {:016x}, expected {:016x}", file.name(), found,
                         expected);
  }
  return ok();
}

}  // namespace

Result<CheckpointFile> CheckpointFile::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(path));
  BN_RETURN_IF_ERROR(check_bytes(file, {}));
  CheckpointFile checkpoint(std::move(file));
  BN_RETURN_IF_ERROR(checkpoint.check());
  return checkpoint;
}

Result<CheckpointFile> CheckpointFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  BN_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::parse(bytes, name));
  BN_RETURN_IF_ERROR(check_bytes(file, bytes));
  CheckpointFile checkpoint(std::move(file));
  BN_RETURN_IF_ERROR(checkpoint.check());
  return checkpoint;
}

Status CheckpointFile::check() {
  if (metadata_of(file_, "format") != kFormat) {
    return invalid_input("{}: is no checkpoint: its metadata name the format {}, expected {}", path(),
                         quote_name(metadata_of(file_, "format")), kFormat);
  }
  if (const std::string version = metadata_of(file_, "version"); version != kVersion) {
    return unsupported("{}: is a checkpoint of version {}, this program reads version {}", path(), quote_name(version),
                       kVersion);
  }
  const auto step = parse_step(metadata_of(file_, "step"));
  if (!step) {
    return invalid_input("{}: its metadata name the step {}, expected a whole number", path(),
                         quote_name(metadata_of(file_, "step")));
  }
  step_ = *step;
  BN_ASSIGN_OR_RETURN(state_, parse_json(metadata_of(file_, "state"), path() + ": state"));
  return ok();
}

Status CheckpointFile::write(const std::string& path, int64_t step, std::span<const TensorView> tensors,
                             const Json& state, const DiskCalls& disk) {
  // Wide elements first keep every tensor aligned.
  std::vector<const TensorView*> order(tensors.size());
  std::transform(tensors.begin(), tensors.end(), order.begin(), [](const TensorView& tensor) { return &tensor; });
  std::stable_sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return dtype_info(a->dtype).block_bytes > dtype_info(b->dtype).block_bytes;
  });
  BN_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(path, disk));
  BN_RETURN_IF_ERROR(writer.add_metadata("format", std::string(kFormat)));
  BN_RETURN_IF_ERROR(writer.add_metadata("version", std::string(kVersion)));
  BN_RETURN_IF_ERROR(writer.add_metadata("step", std::to_string(step)));
  BN_RETURN_IF_ERROR(writer.add_metadata("state", state.dump(-1, ' ', false, Json::error_handler_t::replace)));
  for (const TensorView* tensor : order)
    BN_RETURN_IF_ERROR(writer.add_tensor(tensor->name, tensor->dtype, tensor->shape));
  BN_RETURN_IF_ERROR(writer.add_tensor(std::string(kChecksumTensor), DType::kU8, {int64_t(kChecksum_bytes)}));
  BN_RETURN_IF_ERROR(writer.begin_data());
  for (const TensorView* tensor : order) BN_RETURN_IF_ERROR(writer.write_data(tensor->bytes));
  const uint64_t checksum = writer.checksum();
  BN_RETURN_IF_ERROR(writer.write_data(std::as_bytes(std::span(&checksum, 1))));
  return writer.finish();
}

std::vector<StoredTensor> CheckpointFile::tensors() const {
  return {file_.tensors().begin(), file_.tensors().end() - 1};
}

const StoredTensor* CheckpointFile::find(std::string_view name) const {
  return name == kChecksumTensor ? nullptr : file_.find(name);
}

Status CheckpointFile::read(std::string_view name, DType dtype, const Shape& shape, std::span<std::byte> out) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr) return invalid_input("{}: holds no tensor {}", path(), quote_name(name));
  if (tensor->dtype != dtype || tensor->shape != shape) {
    return invalid_input("{}: tensor {} is {} {}, expected {} {}", path(), quote_name(name),
                         dtype_info(tensor->dtype).name, shape_string(tensor->shape), dtype_info(dtype).name,
                         shape_string(shape));
  }
  if (tensor->size_bytes != out.size()) {
    return invalid_argument("{}: tensor {} has {} bytes, {} were asked for", path(), quote_name(name),
                            tensor->size_bytes, out.size());
  }
  return file_.read(*tensor, 0, out);
}

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:0{}}{}", kPrefix, step, kStepDigits, kSuffix); }

std::optional<int64_t> checkpoint_step(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  const auto step = parse_step(name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size()));
  return step && checkpoint_name(*step) == name ? step : std::nullopt;
}

Result<std::map<int64_t, std::string>> list_checkpoints(const std::string& folder) {
  std::map<int64_t, std::string> paths;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  if (error == std::errc::no_such_file_or_directory) return paths;
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (const auto step = checkpoint_step(entry->path().filename().string())) paths[*step] = entry->path().string();
  }
  if (error) return make_error(ErrorCode::kResource, "{}: cannot list the folder: {}", folder, error.message());
  return paths;
}

Result<NewestCheckpoint> newest_checkpoint(const std::string& folder) {
  BN_ASSIGN_OR_RETURN(const auto paths, list_checkpoints(folder));
  NewestCheckpoint newest;
  for (auto path = paths.rbegin(); path != paths.rend(); ++path) {
    Result<CheckpointFile> file = CheckpointFile::open(path->second);
    if (file && file->step() == path->first) {
      newest.file = *std::move(file);
      return newest;
    }
    newest.rejected.push_back(
        file ? fmt::format("{}: holds step {}, not the one that its name says", path->second, file->step())
             : file.error().message);
  }
  if (newest.rejected.empty()) return newest;
  Error error = invalid_input("{}: none of its {} checkpoints is valid; the newest: {}", folder, paths.size(),
                              newest.rejected.front());
  error.context.assign(newest.rejected.begin() + 1, newest.rejected.end());
  error.suggestion = "restore a checkpoint from a copy, or start anew in another folder";
  return error;
}

}  // namespace bitnet
