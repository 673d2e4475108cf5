#include "format/safetensors.h"
#include "format/safetensors_header.h"
#include "format/sniff.h"
#include "format/text.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <tuple>

namespace bitnet {
namespace {

constexpr uint64_t kLength_bytes = 8;
constexpr uint64_t kSniffed_bytes = 64;
constexpr const char* kFetchAgain = "The file is damaged or was not downloaded in full; fetch it again.";

// Sorts the tensors by their data, which must follow each other from the first byte after the header to the last of
// the file without hole or overlap, and makes the offsets count from the start of the file.
Status place_tensors(std::vector<StoredTensor>& tensors, uint64_t data_begin, uint64_t size_bytes,
                     const std::string& name) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.offset_bytes, a.size_bytes, a.name) < std::tie(b.offset_bytes, b.size_bytes, b.name);
  });
  const uint64_t data_bytes = size_bytes - data_begin;
  uint64_t end = 0;
  for (StoredTensor& tensor : tensors) {
    if (tensor.offset_bytes != end) {
      return invalid_input("{}: \"data_offsets\" of tensor {} begin at {}, expected {}: {}", name,
                           quote_name(tensor.name), tensor.offset_bytes, end,
                           tensor.offset_bytes < end ? "it overlaps the tensor before" : "there is a hole");
    }
    if (tensor.size_bytes > data_bytes - end) {
      Error error = invalid_input("{}: \"data_offsets\" of tensor {} end at {}, but the file has {} bytes of data",
                                  name, quote_name(tensor.name), end + tensor.size_bytes, data_bytes);
      error.suggestion = kFetchAgain;
      return error;
    }
    tensor.offset_bytes += data_begin;
    end += tensor.size_bytes;
  }
  if (end != data_bytes) {
    return invalid_input("{}: {} bytes follow the last tensor, which ends at byte {}", name, data_bytes - end,
                         data_begin + end);
  }
  return ok();
}

Error bad_length(const std::string& name, std::span<const std::byte> first_bytes, const std::string& problem) {
  const std::string contents = describe_contents(first_bytes);
  return invalid_input("{}: byte 0: {}{}{}", name, problem, contents.empty() ? "" : "; it looks like ", contents);
}

}  // namespace

// `read_at(offset, out)` gives bytes of the file, whose length is known and not exceeded.
template <class ReadAt>
Result<SafetensorsFile> SafetensorsFile::parse_header(const std::string& name, uint64_t size_bytes,
                                                      ReadAt&& read_at) try {
  std::vector<std::byte> first(std::min(size_bytes, kSniffed_bytes));
  BN_RETURN_IF_ERROR(read_at(0, std::span(first)));
  if (size_bytes < kLength_bytes) {
    return bad_length(name, first, fmt::format("has {} bytes, too few for a safetensors file", size_bytes));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, first.data(), sizeof header_bytes);
  if (header_bytes > kMaxSafetensorsHeader_bytes) {
    return bad_length(
        name, first,
        fmt::format("the header's length is {}, more than the limit of {}", header_bytes, kMaxSafetensorsHeader_bytes));
  }
  if (header_bytes > size_bytes - kLength_bytes) {
    Error error = bad_length(
        name, first,
        fmt::format("the header's length is {}, but {} bytes follow", header_bytes, size_bytes - kLength_bytes));
    error.suggestion = kFetchAgain;
    return error;
  }
  std::string text(header_bytes, '\0');
  BN_RETURN_IF_ERROR(read_at(kLength_bytes, std::as_writable_bytes(std::span(text))));
  BN_ASSIGN_OR_RETURN(SafetensorsHeader header, parse_safetensors_header(text, name));

  SafetensorsFile file;
  file.name_ = name;
  file.size_bytes_ = size_bytes;
  file.tensors_ = std::move(header.tensors);
  file.metadata_ = std::move(header.metadata);
  BN_RETURN_IF_ERROR(place_tensors(file.tensors_, kLength_bytes + header_bytes, size_bytes, name));
  if (const auto duplicate = file.index_.build(file.tensors_)) {
    return invalid_input("{}: header: the tensor {} appears twice", name, quote_name(file.tensors_[*duplicate].name));
  }
  return file;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for its header", name);
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(File opened, File::open(path));
  auto shared = std::make_shared<const File>(std::move(opened));
  const auto read_at = [&](uint64_t offset, std::span<std::byte> out) { return shared->read_at(offset, out); };
  BN_ASSIGN_OR_RETURN(SafetensorsFile file, parse_header(path, shared->size_bytes(), read_at));
  file.file_ = std::move(shared);
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  const auto read_at = [&](uint64_t offset, std::span<std::byte> out) {
    if (!out.empty()) std::memcpy(out.data(), bytes.data() + offset, out.size());
    return ok();
  };
  BN_ASSIGN_OR_RETURN(SafetensorsFile file, parse_header(name, bytes.size(), read_at));
  file.in_memory_ = bytes;
  return file;
}

const StoredTensor* SafetensorsFile::find(std::string_view tensor) const { return index_.find(tensors_, tensor); }

Status SafetensorsFile::read(const StoredTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const {
  BN_RETURN_IF_ERROR(check_tensor_range(tensor, offset_bytes, out.size(), size_bytes_, name_));
  const uint64_t begin = tensor.offset_bytes + offset_bytes;
  if (file_ != nullptr) return file_->read_at(begin, out);
  if (!out.empty()) std::memcpy(out.data(), in_memory_.data() + begin, out.size());
  return ok();
}

Result<std::vector<std::byte>> SafetensorsFile::read(const StoredTensor& tensor) const try {
  BN_RETURN_IF_ERROR(check_tensor_range(tensor, 0, tensor.size_bytes, size_bytes_, name_));
  std::vector<std::byte> data(tensor.size_bytes);
  BN_RETURN_IF_ERROR(read(tensor, 0, data));
  return data;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for the {} bytes of tensor {}", name_,
                    tensor.size_bytes, quote_name(tensor.name));
}

}  // namespace bitnet
