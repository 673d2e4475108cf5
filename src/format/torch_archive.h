#pragma once

#include "base/file.h"
#include "base/result.h"
#include "format/name_index.h"
#include "format/stored_tensor.h"
#include "format/zip_archive.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// What torch.save makes of a dict of tensors: a zip archive of a pickle and the tensors' storages, byte by byte in
// docs/formats/microsoft-gpu.md. Checked in full when opened; nothing of the pickle is executed. Tensors are contiguous
// and may share a storage. Immutable; thread-safe.
class TorchArchive {
 public:
  static Result<TorchArchive> open(const std::string& path);
  static Result<TorchArchive> parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& name() const { return name_; }
  uint64_t size_bytes() const { return size_bytes_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the dict's order
  const StoredTensor* find(std::string_view tensor) const { return index_.find(tensors_, tensor); }
  const std::shared_ptr<const File>& file() const { return file_; }  // null for an archive held in memory
  Status read(const StoredTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const;

 private:
  TorchArchive() = default;
  static Result<TorchArchive> parse_archive(const std::string& name, uint64_t size_bytes, const ReadBytes& read);

  std::string name_;
  uint64_t size_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  NameIndex index_;
  std::shared_ptr<const File> file_;
  std::span<const std::byte> in_memory_;
};

// Whether a file begins as a zip archive does.
bool is_zip_archive(const std::string& path);

}  // namespace bitnet
