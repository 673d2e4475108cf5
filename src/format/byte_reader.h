#pragma once

#include "base/file.h"
#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// Walks forward over the bytes of a file, from memory or through a window that is filled by pread. No request for
// more bytes than the file has left is met, so the memory it asks for is bounded by the file's size.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string name)
      : name_(std::move(name)), size_bytes_(bytes.size()), view_(bytes) {}
  explicit ByteReader(const File& file) : name_(file.path()), size_bytes_(file.size_bytes()), file_(&file) {}

  const std::string& name() const { return name_; }
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return size_bytes_ - offset_; }

  // The next n bytes, valid until the next call. `field` names them in the error.
  Result<std::span<const std::byte>> take(uint64_t n, const char* field);
  // Back to an offset within what the last take() gave.
  Status rewind(uint64_t offset);
  // The next bytes, copied.
  Status read(std::span<std::byte> out, const char* field);

 private:
  Status check_left(uint64_t n, const char* field) const;

  std::string name_;
  uint64_t size_bytes_ = 0;
  uint64_t offset_ = 0;              // of the next byte
  std::span<const std::byte> view_;  // bytes from view_offset_ on
  uint64_t view_offset_ = 0;
  const File* file_ = nullptr;
  std::vector<std::byte> window_;
};

}  // namespace bitnet
