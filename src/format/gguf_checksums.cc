#include "format/gguf_checksums.h"

#include "format/checksum.h"
#include "format/text.h"

namespace bitnet {

uint64_t layout_checksum(std::span<const StoredTensor> tensors) {
  std::vector<uint64_t> layout;
  for (const StoredTensor& tensor : tensors) {
    layout.push_back(ggml_from_dtype(tensor.dtype).value_or(UINT32_MAX));
    layout.push_back(tensor.size_bytes);
  }
  return checksum_of(std::as_bytes(std::span(layout)));
}

Checksum begin_checksum(const StoredTensor& tensor) {
  Checksum checksum;
  checksum.update(std::as_bytes(std::span(tensor.name)));
  return checksum;
}

Result<GgufChecksums> GgufChecksums::read(const GgufFile& file) {
  GgufChecksums checksums;
  BN_ASSIGN_OR_RETURN(const std::vector<uint64_t>* table, file.metadata().get_array<uint64_t>(kChecksumKey));
  if (table == nullptr) return checksums;
  const bool valid = table->size() == file.tensors().size() + 1 && table->front() == layout_checksum(file.tensors());
  checksums.kind_ = valid ? Kind::kValid : Kind::kOutdated;
  checksums.file_ = &file;
  checksums.table_ = table;
  return checksums;
}

Status GgufChecksums::verify(const StoredTensor& tensor, std::span<const std::byte> data) const {
  if (kind_ != Kind::kValid) return ok();
  Checksum checksum = begin_checksum(tensor);
  checksum.update(data);
  return verify(tensor, checksum);
}

Status GgufChecksums::verify(const StoredTensor& tensor, const Checksum& checksum) const {
  if (kind_ != Kind::kValid) return ok();
  const uint64_t found = checksum.value(), expected = (*table_)[1 + size_t(&tensor - file_->tensors().data())];
  if (found == expected) return ok();
  Error error = invalid_input("{}: tensor {} is damaged: the checksum of its data is {:016x}, expected {:016x}",
                              file_->name(), quote_name(tensor.name), found, expected);
  error.suggestion = "Fetch or convert the file again.";
  return error;
}

}  // namespace bitnet
