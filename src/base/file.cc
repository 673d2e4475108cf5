#include "base/file.h"

#include "base/copied.h"
#include "base/retry.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace bitnet {
namespace {

constexpr size_t kWriteBuffer_bytes = size_t{1} << 20;

int sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  const int result = ::fsync(fd);
  const int code = errno;
  ::close(fd);
  errno = code;
  return result == 0 || code == EINVAL ? 0 : -1;  // some file systems cannot sync a directory
}

}  // namespace

Error io_error(const std::string& path, const char* action) {
  const int code = errno;
  const bool missing = code == ENOENT || code == ENOTDIR || code == ELOOP;
  Error error = make_error(missing ? ErrorCode::kInvalidInput : ErrorCode::kResource, "{}: cannot {}: {}", path, action,
                           std::strerror(code));
  // EIO and ESTALE: what a network file system says while its server is away.
  error.transient = code == EAGAIN || code == EIO || code == ESTALE || code == ETIMEDOUT;
  return error;
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

const DiskCalls& system_disk_calls() {
  static const DiskCalls calls = {
      [](std::string& path_template) { return ::mkostemp(path_template.data(), O_CLOEXEC); },
      [](int fd, const void* data, size_t n_bytes, uint64_t offset) {
        return int64_t(::pwrite(fd, data, n_bytes, off_t(offset)));
      },
      [](int fd) { return ::fsync(fd); },
      [](const std::string& from, const std::string& to) { return ::rename(from.c_str(), to.c_str()); },
      [](const std::string& path) { return ::unlink(path.c_str()); },
      sync_directory,
      [](int fd, void* data, size_t n_bytes, uint64_t offset) {
        return int64_t(::pread(fd, data, n_bytes, off_t(offset)));
      },
      [](std::chrono::microseconds pause) { std::this_thread::sleep_for(pause); },
  };
  return calls;
}

File::File(std::string path, int fd, uint64_t size_bytes, int64_t modified_ns, const DiskCalls& disk)
    : path_(std::move(path)), fd_(fd), size_bytes_(size_bytes), modified_ns_(modified_ns), disk_(&disk) {}
File::~File() {
  if (fd_ >= 0) ::close(fd_);
}
File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_bytes_(other.size_bytes_),
      modified_ns_(other.modified_ns_),
      disk_(other.disk_) {}
File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(modified_ns_, other.modified_ns_);
  std::swap(disk_, other.disk_);
  return *this;
}

Result<File> File::open(const std::string& path, const DiskCalls& disk) {
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
#ifdef __APPLE__
  const timespec modified = info.st_mtimespec;
#else
  const timespec modified = info.st_mtim;
#endif
  return File(path, fd, uint64_t(info.st_size), int64_t{modified.tv_sec} * 1'000'000'000 + modified.tv_nsec, disk);
}

Result<size_t> File::read_some(uint64_t offset, std::span<std::byte> out) const {
  while (true) {
    const int64_t n = disk_->read(fd_, out.data(), out.size(), offset);
    if (n >= 0) return size_t(n);
    if (errno != EINTR) return io_error(path_, "read");
  }
}

Status File::read_at(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const auto read = [&] { return read_some(offset + done, out.subspan(done)); };
    BN_ASSIGN_OR_RETURN(const size_t n, retry(RetryPolicy(), read, disk_->wait));
    if (n == 0) {
      return invalid_input("{}: ends at byte {}, but {} bytes from offset {} were expected", path_, offset + done,
                           out.size(), offset);
    }
    done += n;
  }
  count_read(out.size());
  return ok();
}

Result<MappedFile> MappedFile::map(const File& file) {
  MappedFile mapped;
  const size_t size_bytes = size_t(file.size_bytes());
  if (size_bytes == 0) return mapped;
  void* const data = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, file.fd_, 0);
  if (data == MAP_FAILED) return io_error(file.path(), "map");
  mapped.bytes_ = {static_cast<const std::byte*>(data), size_bytes};
  return mapped;
}
MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
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

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd, const DiskCalls& disk)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd), disk_(&disk) {}
AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      disk_(other.disk_),
      size_bytes_(other.size_bytes_),
      buffer_(std::move(other.buffer_)) {}
AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  disk_->remove(temporary_);
}

Result<AtomicFile> AtomicFile::create(const std::string& path, const DiskCalls& disk) {
  std::string temporary = path + ".tmp-XXXXXX";
  const int fd = disk.create(temporary);
  if (fd < 0) return io_error(path, "create a file beside it");
  // mkostemp makes the file private; a result should carry the permissions any new file of the user has.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(fd, 0666 & ~mask);
  return AtomicFile(path, std::move(temporary), fd, disk);
}

Status AtomicFile::write_through(uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const int64_t n = disk_->write(fd_, data.data(), data.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path_, "write");
    offset += uint64_t(n);
    data = data.subspan(size_t(n));
  }
  return ok();
}

Status AtomicFile::flush() {
  BN_RETURN_IF_ERROR(write_through(size_bytes_, buffer_));
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
  return write_through(offset, data);
}

Status AtomicFile::commit() {
  BN_RETURN_IF_ERROR(flush());
  if (disk_->sync(fd_) != 0) return io_error(path_, "sync");
  if (disk_->rename(temporary_, path_) != 0) return io_error(path_, "rename the finished file to this name");
  ::close(std::exchange(fd_, -1));
  const std::string directory = directory_of(path_);
  if (disk_->sync_directory(directory) != 0) return io_error(directory, "sync the directory");
  return ok();
}

Status write_file_atomically(const std::string& path, std::string_view text) {
  BN_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  BN_RETURN_IF_ERROR(file.write(text));
  return file.commit();
}

}  // namespace bitnet
