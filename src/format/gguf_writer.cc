#include "base/checked.h"
#include "format/checksum.h"
#include "format/gguf.h"
#include "format/gguf_checksums.h"
#include "format/gguf_header.h"
#include "format/text.h"

#include <algorithm>
#include <set>
#include <type_traits>

namespace bitnet {
namespace {

// Bytes of a header in the making.
class HeaderBytes {
 public:
  template <class T>
  void number(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void raw(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void string(std::string_view text) {
    number(uint64_t(text.size()));
    raw(text);
  }
  void scalar(bool value) { number(uint8_t(value)); }
  void scalar(const std::string& value) { string(value); }
  template <class T>
  requires std::is_arithmetic_v<T>
  void scalar(T value) { number(value); }
  // The type's number and the value.
  void value(const GgufValue& value) {
    number(uint32_t(value.index()));
    std::visit(
        [this](const auto& v) {
          if constexpr (std::is_same_v<std::decay_t<decltype(v)>, GgufArray>) {
            array(v);
          } else {
            scalar(v);
          }
        },
        value);
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  uint64_t size() const { return bytes_.size(); }

 private:
  void array(const GgufArray& array) {
    // GgufArray has the format's types in the format's order without the array (9) itself.
    number(uint32_t(array.index() < 9 ? array.index() : array.index() + 1));
    std::visit(
        [this](const auto& elements) {
          number(uint64_t(elements.size()));
          for (size_t i = 0; i < elements.size(); ++i) scalar(static_cast<Element<decltype(elements)>>(elements[i]));
        },
        array);
  }
  // std::vector<bool> hands out proxies; everything else references.
  template <class V>
  using Element = std::conditional_t<std::is_same_v<std::decay_t<V>, std::vector<bool>>, bool,
                                     const typename std::decay_t<V>::value_type&>;

  std::vector<std::byte> bytes_;
};

}  // namespace

struct GgufWriter::State {
  std::string path;
  AtomicFile file;
  uint64_t alignment = kDefaultAlignment;
  GgufMetadata metadata;
  std::vector<StoredTensor> tensors;
  std::set<std::string> tensor_names;
  bool with_checksums = false;
  uint64_t checksums_offset = 0;
  std::vector<uint64_t> checksums;
  Checksum checksum;  // of the current tensor's bytes so far
  bool in_data = false;
  bool finished = false;
  size_t current = 0;          // tensor
  uint64_t current_bytes = 0;  // of it that are written

  Status check_declaring() const {
    if (in_data) return invalid_argument("{}: the header is written already", path);
    return ok();
  }

  Status pad() {
    const uint64_t rest = file.size_bytes() % alignment;
    return rest == 0 ? ok() : file.write(std::vector<std::byte>(alignment - rest));
  }

  HeaderBytes header() {
    HeaderBytes out;
    out.raw("GGUF");
    out.number(uint32_t{3});
    out.number(uint64_t(tensors.size()));
    out.number(uint64_t(metadata.entries().size()) + (with_checksums ? 1 : 0));
    for (const auto& [key, value] : metadata.entries()) {
      out.string(key);
      out.value(value);
    }
    if (with_checksums) {
      out.string(kChecksumKey);
      out.value(GgufValue(GgufArray(std::vector<uint64_t>(tensors.size() + 1))));
      checksums_offset = out.size() - (tensors.size() + 1) * sizeof(uint64_t);
    }
    for (const StoredTensor& tensor : tensors) {
      out.string(tensor.name);
      out.number(uint32_t(tensor.shape.size()));
      for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) out.number(uint64_t(*dim));
      out.number(*ggml_from_dtype(tensor.dtype));
      out.number(tensor.offset_bytes);
    }
    return out;
  }

  Status end_tensor() {
    checksums.push_back(checksum.value());
    ++current;
    current_bytes = 0;
    return pad();
  }
};

Result<GgufWriter> GgufWriter::create(const std::string& path, uint64_t alignment) {
  if (!is_gguf_alignment(alignment)) {
    return invalid_argument("{}: the alignment {} is not a power of two up to {}", path, alignment, kMaxAlignment);
  }
  BN_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  auto state = std::shared_ptr<State>(new State{path, std::move(file), alignment});
  state->metadata.file_name = path;
  if (alignment != kDefaultAlignment) state->metadata.add(kAlignmentKey, uint32_t(alignment));
  return GgufWriter(std::move(state));
}

Status GgufWriter::add_metadata(std::string key, GgufValue value) {
  BN_RETURN_IF_ERROR(state_->check_declaring());
  if (const std::string problem = name_problem(key, GgufLimits{}.max_key_bytes); !problem.empty()) {
    return invalid_argument("{}: the metadata key {} {}", state_->path, quote_name(key), problem);
  }
  if (key == kAlignmentKey || key == kChecksumKey) {
    return invalid_argument("{}: the metadata key {} is written by the writer itself", state_->path, quote_name(key));
  }
  if (state_->metadata.contains(key)) {
    return invalid_argument("{}: the metadata key {} is there already", state_->path, quote_name(key));
  }
  state_->metadata.add(std::move(key), std::move(value));
  return ok();
}

Status GgufWriter::add_tensor(std::string name, DType type, const Shape& shape) {
  State& state = *state_;
  BN_RETURN_IF_ERROR(state.check_declaring());
  if (const std::string problem = name_problem(name, GgufLimits{}.max_name_bytes); !problem.empty()) {
    return invalid_argument("{}: the tensor name {} {}", state.path, quote_name(name), problem);
  }
  if (!ggml_from_dtype(type)) {
    return unsupported("{}: tensor {} has the type {}, which GGUF cannot hold", state.path, quote_name(name),
                       dtype_info(type).name);
  }
  if (shape.empty() || shape.size() > kMaxGgufDims || *std::min_element(shape.begin(), shape.end()) < 1) {
    return invalid_argument("{}: tensor {} has the shape {}, expected 1 to {} dimensions of at least 1", state.path,
                            quote_name(name), shape_string(shape), kMaxGgufDims);
  }
  auto size_bytes = tensor_bytes(type, shape);
  if (!size_bytes) {
    return invalid_argument("{}: tensor {}: {}", state.path, quote_name(name), size_bytes.error().message);
  }
  const uint64_t end = state.tensors.empty() ? 0 : state.tensors.back().offset_bytes + state.tensors.back().size_bytes;
  const uint64_t begin = uint64_t(round_up(int64_t(end), int64_t(state.alignment)));
  if (*size_bytes > uint64_t(INT64_MAX) / 2 - begin) {
    return invalid_argument("{}: tensor {} makes the file longer than a file can be", state.path, quote_name(name));
  }
  if (!state.tensor_names.insert(name).second) {
    return invalid_argument("{}: the tensor name {} is there already", state.path, quote_name(name));
  }
  state.tensors.push_back(StoredTensor{std::move(name), type, shape, begin, *size_bytes});
  return ok();
}

Status GgufWriter::add_checksums() {
  BN_RETURN_IF_ERROR(state_->check_declaring());
  state_->with_checksums = true;
  return ok();
}

Status GgufWriter::begin_data() {
  BN_RETURN_IF_ERROR(state_->check_declaring());
  state_->in_data = true;
  state_->checksums = {layout_checksum(state_->tensors)};
  BN_RETURN_IF_ERROR(state_->file.write(state_->header().bytes()));
  return state_->pad();
}

Status GgufWriter::write_data(std::span<const std::byte> data) {
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
  BN_RETURN_IF_ERROR(state.file.write(data));
  if (state.current_bytes == 0) state.checksum = begin_checksum(tensor);
  state.checksum.update(data);
  state.current_bytes += data.size();
  return state.current_bytes == tensor.size_bytes ? state.end_tensor() : ok();
}

Status GgufWriter::finish() {
  State& state = *state_;
  if (!state.in_data || state.finished) return invalid_argument("{}: finished without data or twice", state.path);
  if (state.current != state.tensors.size()) {
    const StoredTensor& tensor = state.tensors[state.current];
    return invalid_argument("{}: tensor {} has {} of its {} bytes", state.path, quote_name(tensor.name),
                            state.current_bytes, tensor.size_bytes);
  }
  state.finished = true;
  if (state.with_checksums) {
    BN_RETURN_IF_ERROR(state.file.write_at(state.checksums_offset, std::as_bytes(std::span(state.checksums))));
  }
  return state.file.commit();
}

}  // namespace bitnet
