#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace bitnet {
namespace {

constexpr size_t kWriteBuffer_bytes = size_t{1} << 20;

Error io_error(const std::string& path, const char* action) {
  const int code = errno;
  const bool missing = code == ENOENT || code == ENOTDIR || code == ELOOP;
  return make_error(missing ? ErrorCode::kInvalidInput : ErrorCode::kResource, "{}: cannot {}: {}", path, action,
                    std::strerror(code));
}

}  // namespace

File::File(std::string path, int fd, uint64_t size_bytes) : path_(std::move(path)), fd_(fd), size_bytes_(size_bytes) {}
File::~File() {
  if (fd_ >= 0) ::close(fd_);
}
File::File(File&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_bytes_(other.size_bytes_) {}
File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

Result<File> File::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return io_error(path, "open");
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const Error error = io_error(path, "stat");
    ::close(fd);
    return error;
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return invalid_input("{}: is a {}, expected a regular file", path,
                         S_ISDIR(info.st_mode) ? "directory" : "device, pipe or socket");
  }
  return File(path, fd, uint64_t(info.st_size));
}

Status File::read_at(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, off_t(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path_, "read");
    if (n == 0) {
      return invalid_input("{}: ends at byte {}, but {} bytes from offset {} were expected", path_, offset + done,
                           out.size(), offset);
    }
    done += size_t(n);
  }
  return ok();
}

Result<std::string> read_file(const std::string& path, uint64_t limit_bytes) {
  BN_ASSIGN_OR_RETURN(const File file, File::open(path));
  if (file.size_bytes() > limit_bytes) {
    return invalid_input("{}: has {} bytes, more than the limit of {}", path, file.size_bytes(), limit_bytes);
  }
  std::string text(file.size_bytes(), '\0');
  BN_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      size_bytes_(other.size_bytes_),
      buffer_(std::move(other.buffer_)) {}
AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

Result<AtomicFile> AtomicFile::create(const std::string& path) {
  std::string temporary = path + ".tmp-XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return io_error(path, "create a file beside it");
  // mkostemp makes the file private; a result should carry the permissions any new file of the user has.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(fd, 0666 & ~mask);
  return AtomicFile(path, std::move(temporary), fd);
}

Status AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path_, "write");
    done += size_t(n);
  }
  size_bytes_ += buffer_.size();
  buffer_.clear();
  return ok();
}

Status AtomicFile::write(std::span<const std::byte> data) {
  while (!data.empty()) {
    const size_t n = std::min(data.size(), kWriteBuffer_bytes);
    buffer_.insert(buffer_.end(), data.begin(), data.begin() + ptrdiff_t(n));
    data = data.subspan(n);
    if (buffer_.size() >= kWriteBuffer_bytes) BN_RETURN_IF_ERROR(flush());
  }
  return ok();
}

Status AtomicFile::write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

Status AtomicFile::write_at(uint64_t offset, std::span<const std::byte> data) {
  BN_RETURN_IF_ERROR(flush());
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t n = ::pwrite(fd_, data.data() + done, data.size() - done, off_t(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path_, "write");
    done += size_t(n);
  }
  return ok();
}

Status AtomicFile::commit() {
  BN_RETURN_IF_ERROR(flush());
  if (::fsync(fd_) != 0) return io_error(path_, "sync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return io_error(path_, "rename the finished file to this name");
  ::close(std::exchange(fd_, -1));
  const size_t slash = path_.find_last_of('/');
  const std::string directory = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int dir = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return io_error(directory, "open the directory");
  const bool synced = ::fsync(dir) == 0 || errno == EINVAL;  // some file systems cannot sync a directory
  ::close(dir);
  if (!synced) return io_error(directory, "sync the directory");
  return ok();
}

Status write_file_atomically(const std::string& path, std::string_view text) {
  BN_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  BN_RETURN_IF_ERROR(file.write(text));
  return file.commit();
}

}  // namespace bitnet
