#pragma once

#include "base/result.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bitnet {

// A file that only grows, record by record. A record is written by one call and is there for other readers at once; one
// that does not fit on the disk is taken back, so that the file always ends with a whole record. Movable; one thread at
// a time.
class AppendFile {
 public:
  // Makes the file when it is not there.
  static Result<AppendFile> open(const std::string& path);
  // Refuses a file that is there already (ErrorCode::kInvalidArgument).
  static Result<AppendFile> create(const std::string& path);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;

  const std::string& path() const { return path_; }
  uint64_t size_bytes() const { return size_bytes_; }
  Status append(std::string_view record);
  // Cuts off everything from there on.
  Status truncate(uint64_t size_bytes);

 private:
  AppendFile(std::string path, int fd, uint64_t size_bytes);
  static Result<AppendFile> open_with(const std::string& path, int flags);
  std::string path_;
  int fd_ = -1;
  uint64_t size_bytes_ = 0;
};

}  // namespace bitnet
