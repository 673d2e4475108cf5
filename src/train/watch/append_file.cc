#include "train/watch/append_file.h"

#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace bitnet {

AppendFile::AppendFile(std::string path, int fd, uint64_t size_bytes)
    : path_(std::move(path)), fd_(fd), size_bytes_(size_bytes) {}
AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}
AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_bytes_(other.size_bytes_) {}
AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

Result<AppendFile> AppendFile::open_with(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
  if (fd < 0 && errno == EEXIST) return invalid_argument("{}: is there already", path);
  if (fd < 0) return io_error(path, "open for writing");
  AppendFile file(path, fd, 0);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return io_error(path, "stat");
  file.size_bytes_ = uint64_t(info.st_size);
  return file;
}

Result<AppendFile> AppendFile::open(const std::string& path) { return open_with(path, 0); }
Result<AppendFile> AppendFile::create(const std::string& path) { return open_with(path, O_EXCL); }

Status AppendFile::append(std::string_view record) {
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t n = ::pwrite(fd_, record.data() + done, record.size() - done, off_t(size_bytes_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      Error error = io_error(path_, "write");
      if (::ftruncate(fd_, off_t(size_bytes_)) != 0) error.add_context("and its end is not a whole record");
      return error;
    }
    done += size_t(n);
  }
  size_bytes_ += record.size();
  return ok();
}

Status AppendFile::truncate(uint64_t size_bytes) {
  if (::ftruncate(fd_, off_t(size_bytes)) != 0) return io_error(path_, "cut");
  size_bytes_ = size_bytes;
  return ok();
}

}  // namespace bitnet
