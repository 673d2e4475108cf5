#include "format/gguf.h"
#include "format/gguf_header.h"
#include "format/text.h"

#include <cstring>
#include <new>

namespace bitnet {
namespace {

constexpr const char* kSplitCountKey = "split.count";

Status check_not_split(const GgufMetadata& metadata) {
  BN_ASSIGN_OR_RETURN(const uint64_t count, metadata.get_uint(kSplitCountKey, 0, UINT64_MAX, 0));
  if (count <= 1) return ok();
  BN_ASSIGN_OR_RETURN(const uint64_t number, metadata.get_uint("split.no", 0, UINT64_MAX, 0));
  Error error = unsupported(
      "{}: metadata key \"{}\" says that this is one of {} parts (\"split.no\" is {}); parts of a "
      "split model cannot be read on their own",
      metadata.file_name, kSplitCountKey, count, number);
  error.suggestion = "Join the parts first, for example with llama-gguf-split --merge.";
  return error;
}

}  // namespace

Result<GgufFile> GgufFile::parse_header(ByteReader& in, const GgufLimits& limits) try {
  GgufFile file;
  BN_ASSIGN_OR_RETURN(const GgufCounts counts, read_gguf_counts(in));
  file.version_ = counts.version;
  file.size_bytes_ = in.size_bytes();
  BN_ASSIGN_OR_RETURN(file.metadata_, read_gguf_metadata(in, counts.n_keys, limits));
  BN_RETURN_IF_ERROR(check_not_split(file.metadata_));
  BN_ASSIGN_OR_RETURN(file.alignment_, gguf_alignment(file.metadata_));
  BN_ASSIGN_OR_RETURN(file.tensors_, read_gguf_tensors(in, counts.n_tensors, file.alignment_, limits));
  if (const auto duplicate = file.index_.build(file.tensors_)) {
    return invalid_input("{}: the tensor name {} appears twice", in.name(), quote_name(file.tensors_[*duplicate].name));
  }
  return file;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for its header", in.name());
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(File opened, File::open(path));
  auto shared = std::make_shared<const File>(std::move(opened));
  ByteReader in(*shared);
  BN_ASSIGN_OR_RETURN(GgufFile file, parse_header(in, GgufLimits{}));
  file.file_ = std::move(shared);
  return file;
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, const std::string& name, const GgufLimits& limits) {
  ByteReader in(bytes, name);
  BN_ASSIGN_OR_RETURN(GgufFile file, parse_header(in, limits));
  file.in_memory_ = bytes;
  return file;
}

const StoredTensor* GgufFile::find(std::string_view tensor) const { return index_.find(tensors_, tensor); }

Status GgufFile::read(const StoredTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const {
  BN_RETURN_IF_ERROR(check_tensor_range(tensor, offset_bytes, out.size(), size_bytes_, name()));
  const uint64_t begin = tensor.offset_bytes + offset_bytes;
  if (file_ != nullptr) return file_->read_at(begin, out);
  if (!out.empty()) std::memcpy(out.data(), in_memory_.data() + begin, out.size());
  return ok();
}

Result<std::vector<std::byte>> GgufFile::read(const StoredTensor& tensor) const try {
  BN_RETURN_IF_ERROR(check_tensor_range(tensor, 0, tensor.size_bytes, size_bytes_, name()));
  std::vector<std::byte> data(tensor.size_bytes);
  BN_RETURN_IF_ERROR(read(tensor, 0, data));
  return data;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for the {} bytes of tensor {}", name(),
                    tensor.size_bytes, quote_name(tensor.name));
}

}  // namespace bitnet
