#pragma once

#include "base/result.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet {

// The calls that read a disk and change what is on it, with the results and errno of POSIX. A test hands out its own to
// watch them, to fail them, or to forget what was not synced.
struct DiskCalls {
  std::function<int(std::string& path_template)> create;  // mkostemp
  std::function<int64_t(int fd, const void* data, size_t n_bytes, uint64_t offset)> write;
  std::function<int(int fd)> sync;
  std::function<int(const std::string& from, const std::string& to)> rename;
  std::function<int(const std::string& path)> remove;
  std::function<int(const std::string& directory)> sync_directory;  // names that came or went in it
  std::function<int64_t(int fd, void* data, size_t n_bytes, uint64_t offset)> read;
  std::function<void(std::chrono::microseconds)> wait;  // before something is tried again
};
const DiskCalls& system_disk_calls();

// A regular file open for reading. Reads go through pread, so a file that shrinks meanwhile gives an error, not a
// signal. Thread-safe; movable.
class File {
 public:
  // `disk` must outlive the file.
  static Result<File> open(const std::string& path, const DiskCalls& disk = system_disk_calls());
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  const std::string& path() const { return path_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // Fills `out` from `offset`, or says that the file is shorter than when it was opened. What fails for the moment
  // only, as on network file systems, is tried again a few times (base/retry.h).
  Status read_at(uint64_t offset, std::span<std::byte> out) const;
  int64_t modified_ns() const { return modified_ns_; }  // since 1970, when it was opened

 private:
  friend class MappedFile;
  File(std::string path, int fd, uint64_t size_bytes, int64_t modified_ns, const DiskCalls& disk);
  Result<size_t> read_some(uint64_t offset, std::span<std::byte> out) const;
  std::string path_;
  int fd_ = -1;
  uint64_t size_bytes_ = 0;
  int64_t modified_ns_ = 0;
  const DiskCalls* disk_;
};

// A whole file as memory to read, which all processes that map it share. For files of our own only: reading what
// another process has cut off since ends this one.
// Thread-safe; movable.
class MappedFile {
 public:
  static Result<MappedFile> map(const File& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  MappedFile() = default;
  std::span<const std::byte> bytes_;
};

// The whole file, refused above `limit_bytes`.
Result<std::string> read_file(const std::string& path, uint64_t limit_bytes = uint64_t{1} << 32);

// The directory that holds `path`: "." for a bare name.
std::string directory_of(const std::string& path);
// An error for a failed call, from errno: "PATH: cannot ACTION: No space left on device". Transient where the same call
// may succeed a moment later.
Error io_error(const std::string& path, const char* action);

// A file that appears under its name only when complete: written beside it under a temporary name, synced, renamed,
// and the directory synced. Dropped without commit(), it leaves nothing behind. Not thread-safe.
class AtomicFile {
 public:
  // `disk` must outlive the file.
  static Result<AtomicFile> create(const std::string& path, const DiskCalls& disk = system_disk_calls());
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  Status write(std::span<const std::byte> data);
  Status write(std::string_view text);
  // Overwrites bytes written before.
  Status write_at(uint64_t offset, std::span<const std::byte> data);
  uint64_t size_bytes() const { return size_bytes_ + buffer_.size(); }
  Status commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd, const DiskCalls& disk);
  Status flush();
  Status write_through(uint64_t offset, std::span<const std::byte> data);
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  const DiskCalls* disk_;
  uint64_t size_bytes_ = 0;
  std::vector<std::byte> buffer_;
};

Status write_file_atomically(const std::string& path, std::string_view text);

}  // namespace bitnet
