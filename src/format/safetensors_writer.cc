#include "base/checked.h"
#include "format/checksum.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "format/safetensors_header.h"
#include "format/text.h"

#include <set>

namespace bitnet {

struct SafetensorsWriter::State {
  std::string path;
  AtomicFile file;
  std::map<std::string, std::string> metadata;
  std::vector<StoredTensor> tensors;
  std::set<std::string> names;
  bool in_data = false;
  bool finished = false;
  size_t current = 0;          // tensor
  uint64_t current_bytes = 0;  // of it that are written
  Checksum checksum = {};

  Status write(std::span<const std::byte> data) {
    checksum.update(data);
    return file.write(data);
  }

  Status check_declaring() const {
    if (in_data) return invalid_argument("{}: the header is written already", path);
    return ok();
  }

  // Ends in spaces, so that the data begin at a multiple of 8.
  std::string header() const {
    std::string text = "{";
    if (!metadata.empty()) text += fmt::format("\"{}\":{}", kMetadataKey, Json(metadata).dump());
    for (const StoredTensor& tensor : tensors) {
      text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                          Json(tensor.name).dump(), safetensors_dtype_name(tensor.dtype), Json(tensor.shape).dump(),
                          tensor.offset_bytes, tensor.offset_bytes + tensor.size_bytes);
    }
    text += '}';
    text.resize(size_t(round_up(int64_t(text.size()), 8)), ' ');
    return text;
  }

  // Tensors without data need no call of write_data.
  void skip_empty_tensors() {
    while (current < tensors.size() && tensors[current].size_bytes == 0) ++current;
  }
};

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path, const DiskCalls& disk) {
  BN_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path, disk));
  return SafetensorsWriter(std::shared_ptr<State>(new State{path, std::move(file)}));
}

Status SafetensorsWriter::add_metadata(std::string key, std::string value) {
  BN_RETURN_IF_ERROR(state_->check_declaring());
  if (!is_utf8(key) || !is_utf8(value) || value.size() > kMaxSafetensorsMetadata_bytes) {
    return invalid_argument("{}: the metadata {} is not UTF-8 or longer than {} bytes", state_->path, quote_name(key),
                            kMaxSafetensorsMetadata_bytes);
  }
  if (state_->metadata.contains(key)) {
    return invalid_argument("{}: the metadata key {} is there already", state_->path, quote_name(key));
  }
  state_->metadata.emplace(std::move(key), std::move(value));
  return ok();
}

Status SafetensorsWriter::add_tensor(std::string name, DType type, const Shape& shape) {
  State& state = *state_;
  BN_RETURN_IF_ERROR(state.check_declaring());
  if (name.empty() || name.size() > kMaxSafetensorsName_bytes || name.find('\0') != std::string::npos ||
      name == kMetadataKey || !is_utf8(name)) {
    return invalid_argument("{}: {} cannot be a tensor's name", state.path, quote_name(name));
  }
  if (safetensors_dtype_name(type).empty()) {
    return unsupported("{}: tensor {} has the type {}, which safetensors cannot hold", state.path, quote_name(name),
                       dtype_info(type).name);
  }
  if (shape.size() > kMaxSafetensorsDims) {
    return invalid_argument("{}: tensor {} has {} dimensions, more than {}", state.path, quote_name(name), shape.size(),
                            kMaxSafetensorsDims);
  }
  const auto size_bytes = tensor_bytes(type, shape);
  if (!size_bytes) {
    return invalid_argument("{}: tensor {}: {}", state.path, quote_name(name), size_bytes.error().message);
  }
  const uint64_t begin =
      state.tensors.empty() ? 0 : state.tensors.back().offset_bytes + state.tensors.back().size_bytes;
  if (*size_bytes > uint64_t(INT64_MAX) - begin) {
    return invalid_argument("{}: tensor {} makes the file longer than a file can be", state.path, quote_name(name));
  }
  if (begin % uint64_t(dtype_info(type).block_bytes) != 0) {
    return invalid_argument("{}: the data of tensor {} ({}) would begin at {}; declare tensors of wide elements first",
                            state.path, quote_name(name), dtype_info(type).name, begin);
  }
  if (!state.names.insert(name).second) {
    return invalid_argument("{}: the tensor name {} is there already", state.path, quote_name(name));
  }
  state.tensors.push_back(StoredTensor{std::move(name), type, shape, begin, *size_bytes});
  return ok();
}

Status SafetensorsWriter::begin_data() {
  State& state = *state_;
  BN_RETURN_IF_ERROR(state.check_declaring());
  state.in_data = true;
  state.skip_empty_tensors();
  const std::string header = state.header();
  if (header.size() > kMaxSafetensorsHeader_bytes) {
    return invalid_argument("{}: the header takes {} bytes, more than the limit of {}", state.path, header.size(),
                            kMaxSafetensorsHeader_bytes);
  }
  const uint64_t length = header.size();
  BN_RETURN_IF_ERROR(state.write(std::as_bytes(std::span(&length, 1))));
  return state.write(std::as_bytes(std::span(header)));
}

Status SafetensorsWriter::write_data(std::span<const std::byte> data) {
  State& state = *state_;
  if (!state.in_data || state.finished) return invalid_argument("{}: data outside the data section", state.path);
  if (data.empty()) return ok();
  if (state.current == state.tensors.size()) {
    return invalid_argument("{}: {} bytes of data after the last tensor", state.path, data.size());
  }
  const StoredTensor& tensor = state.tensors[state.current];
  if (data.size() > tensor.size_bytes - state.current_bytes) {
    return invalid_argument("{}: {} bytes of data for tensor {}, which takes {} more", state.path, data.size(),
                            quote_name(tensor.name), tensor.size_bytes - state.current_bytes);
  }
  BN_RETURN_IF_ERROR(state.write(data));
  state.current_bytes += data.size();
  if (state.current_bytes == tensor.size_bytes) {
    ++state.current;
    state.current_bytes = 0;
    state.skip_empty_tensors();
  }
  return ok();
}

uint64_t SafetensorsWriter::checksum() const { return state_->checksum.value(); }

Status SafetensorsWriter::finish() {
  State& state = *state_;
  if (!state.in_data || state.finished) return invalid_argument("{}: finished without data or twice", state.path);
  if (state.current != state.tensors.size()) {
    const StoredTensor& tensor = state.tensors[state.current];
    return invalid_argument("{}: tensor {} has {} of its {} bytes", state.path, quote_name(tensor.name),
                            state.current_bytes, tensor.size_bytes);
  }
  state.finished = true;
  return state.file.commit();
}

}  // namespace bitnet
