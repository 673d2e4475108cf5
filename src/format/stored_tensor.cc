#include "format/stored_tensor.h"

#include "format/text.h"

namespace bitnet {

Status check_tensor_range(const StoredTensor& tensor, uint64_t offset_bytes, uint64_t n_bytes, uint64_t file_bytes,
                          const std::string& file) {
  if (offset_bytes > tensor.size_bytes || n_bytes > tensor.size_bytes - offset_bytes) {
    return invalid_argument("{}: {} bytes from byte {} of tensor {} were asked for, which has {}", file, n_bytes,
                            offset_bytes, quote_name(tensor.name), tensor.size_bytes);
  }
  if (tensor.offset_bytes > file_bytes || tensor.size_bytes > file_bytes - tensor.offset_bytes) {
    return invalid_argument("{}: has no tensor {} of {} bytes at byte {}", file, quote_name(tensor.name),
                            tensor.size_bytes, tensor.offset_bytes);
  }
  return ok();
}

}  // namespace bitnet
