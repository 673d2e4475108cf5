#include "memory/buffer.h"

#include "memory/limits.h"
#include "memory/pool.h"

namespace bitnet {
namespace {

constexpr size_t kCacheLine_bytes = 64;

// What the pool is asked for, so that blocks begin on cache lines.
size_t whole_lines(size_t size_bytes) {
  return (size_bytes + kCacheLine_bytes - 1) / kCacheLine_bytes * kCacheLine_bytes;
}

Error no_memory(size_t size_bytes) {
  Error error = make_error(ErrorCode::kResource, "cannot allocate {} bytes of memory", size_bytes);
  const MemoryLimits limits = read_memory_limits();
  if (limits.available_bytes > 0) {
    error.message += fmt::format(": {} bytes are available", limits.available_bytes);
    if (limits.limit_bytes > 0) error.message += fmt::format(" of the limit of {}", limits.limit_bytes);
  }
  return error;
}

}  // namespace

Result<Buffer> Buffer::allocate(size_t size_bytes, bool huge_pages, CallSite site) {
  Buffer buffer;
  if (size_bytes == 0) return buffer;
  if (size_bytes > size_t{PTRDIFF_MAX}) return no_memory(size_bytes);
  buffer.data_ = host_pool().allocate_zeroed(whole_lines(size_bytes), huge_pages, site);
  if (buffer.data_ == nullptr) return no_memory(size_bytes);
  buffer.size_bytes_ = size_bytes;
  buffer.owner_ = huge_pages ? Owner::kPool : Owner::kPoolSmallPages;
  return buffer;
}

Result<Buffer> Buffer::allocate_from(const MemorySource& source, size_t size_bytes) {
  if (size_bytes == 0) return Buffer();
  BN_ASSIGN_OR_RETURN(std::byte* const data, source.take(source, {size_bytes}));
  return adopt(source, data, size_bytes);
}

Buffer Buffer::adopt(const MemorySource& source, std::byte* data, size_t size_bytes) {
  Buffer buffer;
  buffer.data_ = data;
  buffer.size_bytes_ = size_bytes;
  buffer.owner_ = Owner::kSource;
  buffer.source_ = &source;
  return buffer;
}

Buffer Buffer::borrow(std::byte* data, size_t size_bytes) {
  Buffer buffer;
  buffer.data_ = data;
  buffer.size_bytes_ = size_bytes;
  return buffer;
}

Buffer::~Buffer() {
  switch (owner_) {
    case Owner::kPool: host_pool().release_zeroed(data_, whole_lines(size_bytes_), true); break;
    case Owner::kPoolSmallPages: host_pool().release_zeroed(data_, whole_lines(size_bytes_), false); break;
    case Owner::kSource: source_->give_back(*source_, data_, size_bytes_); break;
    case Owner::kOther: break;
  }
}

}  // namespace bitnet
