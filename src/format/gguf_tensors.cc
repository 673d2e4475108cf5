#include "base/checked.h"
#include "format/gguf_header.h"
#include "format/text.h"

#include <algorithm>
#include <numeric>

namespace bitnet {
namespace {

constexpr uint64_t kMinInfo_bytes = 8 + 1 + 4 + 8 + 4 + 8;  // name length, name, n_dims, one dimension, type, offset

// One entry of the tensor table. `offset_bytes` is still relative to the data section.
class TensorInfoReader {
 public:
  TensorInfoReader(ByteReader& in, uint64_t alignment, const GgufLimits& limits)
      : in_(in), alignment_(alignment), limits_(limits) {}

  Result<StoredTensor> read() {
    StoredTensor tensor;
    const uint64_t offset = in_.offset();
    BN_ASSIGN_OR_RETURN(tensor.name, read_gguf_string(in_, limits_.max_string_bytes, "a tensor name"));
    if (const std::string problem = name_problem(tensor.name, limits_.max_name_bytes); !problem.empty()) {
      return invalid_input("{}: byte {}: the tensor name {} {}", in_.name(), offset, quote_name(tensor.name), problem);
    }
    if (Status status = read_after_name(tensor); !status) {
      status.error().message += fmt::format(" (tensor {})", quote_name(tensor.name));
      return std::move(status.error());
    }
    return tensor;
  }

 private:
  Status read_after_name(StoredTensor& tensor) {
    BN_RETURN_IF_ERROR(read_shape(tensor));
    uint64_t offset = in_.offset();
    BN_ASSIGN_OR_RETURN(const uint32_t type, read_number<uint32_t>(in_, "a tensor's type"));
    const auto dtype = dtype_from_ggml(type);
    if (!dtype) {
      const std::string name = ggml_type_name(type);
      return make_error(name == "unknown" ? ErrorCode::kInvalidInput : ErrorCode::kUnsupported,
                        "{}: byte {}: the tensor type {} ({}) is not supported", in_.name(), offset, type, name);
    }
    tensor.dtype = *dtype;
    auto size_bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!size_bytes) {
      return invalid_input("{}: byte {}: {}", in_.name(), offset, size_bytes.error().message);
    }
    tensor.size_bytes = *size_bytes;
    offset = in_.offset();
    BN_ASSIGN_OR_RETURN(tensor.offset_bytes, read_number<uint64_t>(in_, "a tensor's offset"));
    if (tensor.offset_bytes % alignment_ != 0) {
      return invalid_input("{}: byte {}: the offset {} is not a multiple of the alignment {}", in_.name(), offset,
                           tensor.offset_bytes, alignment_);
    }
    return ok();
  }

  // The file's innermost-first dimensions become our outermost-first shape here and nowhere else.
  Status read_shape(StoredTensor& tensor) {
    uint64_t offset = in_.offset();
    BN_ASSIGN_OR_RETURN(const uint32_t n_dims, read_number<uint32_t>(in_, "a tensor's number of dimensions"));
    if (n_dims < 1 || n_dims > kMaxGgufDims) {
      return invalid_input("{}: byte {}: {} dimensions, expected 1 to {}", in_.name(), offset, n_dims, kMaxGgufDims);
    }
    tensor.shape.resize(n_dims);
    for (uint32_t i = 0; i < n_dims; ++i) {
      offset = in_.offset();
      BN_ASSIGN_OR_RETURN(const uint64_t dim, read_number<uint64_t>(in_, "a tensor's dimension"));
      if (dim < 1 || dim > uint64_t(INT64_MAX)) {
        return invalid_input("{}: byte {}: the dimension {} is not between 1 and 2^63 - 1", in_.name(), offset, dim);
      }
      tensor.shape[n_dims - 1 - i] = int64_t(dim);
    }
    return ok();
  }

  ByteReader& in_;
  const uint64_t alignment_;
  const GgufLimits& limits_;
};

Status check_count(const ByteReader& in, uint64_t n_tensors, const GgufLimits& limits) {
  if (n_tensors > in.remaining() / kMinInfo_bytes) {
    return invalid_input("{}: byte 8: announces {} tensors, whose table does not fit in the {} bytes left", in.name(),
                         n_tensors, in.remaining());
  }
  if (n_tensors > limits.max_tensors) {
    return unsupported("{}: byte 8: has {} tensors, more than the limit of {}", in.name(), n_tensors,
                       limits.max_tensors);
  }
  return ok();
}

// Makes the offset count from the start of the file.
Status place(StoredTensor& tensor, uint64_t data_begin, const ByteReader& in) {
  const auto begin = checked_add(data_begin, tensor.offset_bytes);
  const auto end = begin ? checked_add(*begin, tensor.size_bytes) : std::nullopt;
  if (!end || *end > in.size_bytes()) {
    Error error = invalid_input(
        "{}: the data of tensor {} ({} bytes at offset {} of the data section, which begins at "
        "byte {}) go beyond the end of the file at byte {}",
        in.name(), quote_name(tensor.name), tensor.size_bytes, tensor.offset_bytes, data_begin, in.size_bytes());
    error.suggestion = "The file is damaged or was not downloaded in full; fetch it again.";
    return error;
  }
  tensor.offset_bytes = *begin;
  return ok();
}

// Holes and any order are allowed, an overlap is not. Nothing but padding may follow the last byte of data: more
// would mean that the header has lost a tensor, or that the file carries something else.
Status check_layout(const std::vector<StoredTensor>& tensors, uint64_t header_end, uint64_t alignment,
                    const ByteReader& in) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return tensors[a].offset_bytes < tensors[b].offset_bytes; });
  uint64_t end = header_end;
  for (size_t i = 0; i < order.size(); ++i) {
    const StoredTensor& tensor = tensors[order[i]];
    if (tensor.offset_bytes < end) {
      return invalid_input("{}: the data of tensor {} at byte {} overlap those of tensor {}, which end at byte {}",
                           in.name(), quote_name(tensor.name), tensor.offset_bytes,
                           quote_name(tensors[order[i - 1]].name), end);
    }
    end = tensor.offset_bytes + tensor.size_bytes;
  }
  const uint64_t padded_end = uint64_t(round_up(int64_t(end), int64_t(alignment)));
  if (in.size_bytes() > padded_end) {
    return invalid_input(
        "{}: {} bytes follow the end of the last tensor at byte {}, where at most padding to {} is "
        "expected: the header does not belong to the data",
        in.name(), in.size_bytes() - end, end, padded_end);
  }
  return ok();
}

}  // namespace

Result<std::vector<StoredTensor>> read_gguf_tensors(ByteReader& in, uint64_t n_tensors, uint64_t alignment,
                                                    const GgufLimits& limits) {
  BN_RETURN_IF_ERROR(check_count(in, n_tensors, limits));
  std::vector<StoredTensor> tensors;
  tensors.reserve(n_tensors);
  for (uint64_t i = 0; i < n_tensors; ++i) {
    BN_ASSIGN_OR_RETURN(StoredTensor tensor, TensorInfoReader(in, alignment, limits).read());
    tensors.push_back(std::move(tensor));
  }
  const uint64_t header_end = in.offset();
  const uint64_t data_begin = uint64_t(round_up(int64_t(header_end), int64_t(alignment)));
  for (StoredTensor& tensor : tensors) BN_RETURN_IF_ERROR(place(tensor, data_begin, in));
  BN_RETURN_IF_ERROR(check_layout(tensors, header_end, alignment, in));
  return tensors;
}

}  // namespace bitnet
