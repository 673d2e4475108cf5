#include "train/checkpoint_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <thread>
#include <utility>

namespace bitnet {
namespace {

constexpr const char* kLockName = "lock";

// A lock that ends with the process, however that ends.
class FolderLock {
 public:
  static Result<FolderLock> take(const std::string& folder) {
    const std::string path = folder + "/" + kLockName;
    FolderLock lock;
    lock.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock.fd_ < 0) return io_error(path, "create the lock");
    if (::flock(lock.fd_, LOCK_EX | LOCK_NB) == 0) return lock;
    if (errno != EWOULDBLOCK) return io_error(path, "lock");
    Error error = make_error(ErrorCode::kResource, "{}: another process is writing checkpoints here", folder);
    error.suggestion = "wait for it to end, or use another folder";
    return error;
  }
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  FolderLock() = default;
  int fd_ = -1;
};

// "step-000000000010.safetensors.tmp-Xy12ab": a file that was never finished.
bool is_unfinished(const std::string& name) {
  const size_t mark = name.find(".tmp-");
  return mark != std::string::npos && checkpoint_step(name.substr(0, mark)).has_value();
}

Status remove_unfinished(const std::string& folder, const DiskCalls& disk) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (!is_unfinished(entry->path().filename().string())) continue;
    if (disk.remove(entry->path().string()) != 0) return io_error(entry->path().string(), "remove");
  }
  if (error) return make_error(ErrorCode::kResource, "{}: cannot list the folder: {}", folder, error.message());
  return ok();
}

}  // namespace

struct CheckpointStore::Impl {
  Impl(std::string in_folder, const CheckpointStoreOptions& in_options, FolderLock in_lock)
      : folder(std::move(in_folder)), options(in_options), lock(std::move(in_lock)) {}
  ~Impl() {
    if (writer.joinable()) writer.join();
  }

  // The caller's tensors, copied.
  struct Snapshot {
    int64_t step = 0;
    Json state;
    std::vector<std::byte> bytes;
    std::vector<TensorView> tensors;
  };

  void take_snapshot(int64_t step, std::span<const TensorView> tensors, const Json& state) {
    snapshot.step = step;
    snapshot.state = state;
    size_t n_bytes = 0;
    for (const TensorView& tensor : tensors) n_bytes += tensor.bytes.size();
    snapshot.bytes.resize(n_bytes);
    snapshot.tensors.assign(tensors.begin(), tensors.end());
    size_t offset = 0;
    for (TensorView& tensor : snapshot.tensors) {
      std::copy(tensor.bytes.begin(), tensor.bytes.end(), snapshot.bytes.begin() + ptrdiff_t(offset));
      tensor.bytes = std::span(snapshot.bytes).subspan(offset, tensor.bytes.size());
      offset += tensor.bytes.size();
    }
  }

  Status write_snapshot() {
    BN_RETURN_IF_ERROR(CheckpointFile::write(folder + "/" + checkpoint_name(snapshot.step), snapshot.step,
                                             snapshot.tensors, snapshot.state, *options.disk));
    valid_steps.insert(snapshot.step);
    return rotate();
  }

  // A checkpoint is its one name: it is there in full or not at all at any time. Those that were not checked by this
  // process do not count as valid.
  Status rotate() {
    if (valid_steps.size() < size_t(options.n_keep)) return ok();
    const int64_t oldest_kept = *std::prev(valid_steps.end(), options.n_keep);
    BN_ASSIGN_OR_RETURN(const auto paths, list_checkpoints(folder));
    bool removed = false;
    for (const auto& [step, path] : paths) {
      if (step >= oldest_kept) break;
      if (options.disk->remove(path) != 0) return io_error(path, "remove the old checkpoint");
      valid_steps.erase(step);
      removed = true;
    }
    if (removed && options.disk->sync_directory(folder) != 0) return io_error(folder, "sync the directory");
    return ok();
  }

  std::string folder;
  CheckpointStoreOptions options;
  FolderLock lock;
  std::thread writer;
  // The writer's own while it runs.
  Snapshot snapshot;
  std::set<int64_t> valid_steps;
  Status written = ok();
};

CheckpointStore::CheckpointStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CheckpointStore::~CheckpointStore() = default;
CheckpointStore::CheckpointStore(CheckpointStore&&) noexcept = default;
CheckpointStore& CheckpointStore::operator=(CheckpointStore&&) noexcept = default;

Result<CheckpointStore> CheckpointStore::open(const std::string& folder, const CheckpointStoreOptions& options) {
  if (options.n_keep < 2) {
    return invalid_argument("{}: {} checkpoint(s) were to be kept, at least 2 are needed to survive a damaged one",
                            folder, options.n_keep);
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return make_error(ErrorCode::kResource, "{}: cannot create the folder: {}", folder, error.message());
  BN_ASSIGN_OR_RETURN(FolderLock lock, FolderLock::take(folder));
  BN_RETURN_IF_ERROR(remove_unfinished(folder, *options.disk));
  return CheckpointStore(std::make_unique<Impl>(folder, options, std::move(lock)));
}

Result<NewestCheckpoint> CheckpointStore::load_newest() {
  BN_RETURN_IF_ERROR(wait());
  BN_ASSIGN_OR_RETURN(NewestCheckpoint newest, newest_checkpoint(impl_->folder));
  if (newest.file) impl_->valid_steps.insert(newest.file->step());
  return newest;
}

Status CheckpointStore::save(int64_t step, std::span<const TensorView> tensors, const Json& state) {
  if (step < 0) return invalid_argument("{}: step {} is negative", impl_->folder, step);
  BN_RETURN_IF_ERROR(wait());
  Impl* impl = impl_.get();
  impl->take_snapshot(step, tensors, state);
  impl->writer = std::thread([impl] { impl->written = impl->write_snapshot(); });
  return ok();
}

Status CheckpointStore::wait() {
  if (impl_->writer.joinable()) impl_->writer.join();
  return std::exchange(impl_->written, ok());
}

}  // namespace bitnet
