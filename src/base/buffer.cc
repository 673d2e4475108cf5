#include "base/buffer.h"

#include "base/checked.h"

#include <sys/mman.h>
#include <cstdint>

namespace bitnet {
namespace {

constexpr size_t kPage_bytes = 4096, kHugePage_bytes = size_t{2} << 20;

}  // namespace

Result<Buffer> Buffer::allocate(size_t size_bytes, bool huge_pages) {
  Buffer buffer;
  if (size_bytes == 0) return buffer;
  const bool large = huge_pages && size_bytes >= kHugePage_bytes;
  const auto padded = checked_add(size_bytes, large ? 2 * kHugePage_bytes : kPage_bytes);
  if (!padded || *padded > uint64_t(PTRDIFF_MAX)) {
    return make_error(ErrorCode::kResource, "cannot allocate {} bytes of memory", size_bytes);
  }
  // The start is aligned for huge pages; what is left over at the end takes small ones.
  const size_t mapped_bytes = (size_bytes + kPage_bytes - 1) / kPage_bytes * kPage_bytes;
  const size_t reserved_bytes = mapped_bytes + (large ? kHugePage_bytes : 0);
  void* const raw = ::mmap(nullptr, reserved_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return make_error(ErrorCode::kResource, "cannot allocate {} bytes of memory", size_bytes);
  }
  std::byte* data = static_cast<std::byte*>(raw);
  if (large) {
    const size_t head_bytes = (kHugePage_bytes - reinterpret_cast<uintptr_t>(data) % kHugePage_bytes) % kHugePage_bytes;
    if (head_bytes > 0) ::munmap(data, head_bytes);
    data += head_bytes;
    const size_t tail_bytes = reserved_bytes - head_bytes - mapped_bytes;
    if (tail_bytes > 0) ::munmap(data + mapped_bytes, tail_bytes);
#ifdef MADV_HUGEPAGE
    ::madvise(data, mapped_bytes, MADV_HUGEPAGE);
#endif
  }
  buffer.data_ = data;
  buffer.size_bytes_ = size_bytes;
  buffer.mapped_bytes_ = mapped_bytes;
  return buffer;
}

Buffer Buffer::adopt(std::byte* data, size_t size_bytes, Release release) {
  Buffer buffer;
  buffer.data_ = data;
  buffer.size_bytes_ = size_bytes;
  buffer.release_ = release;
  return buffer;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (release_ != nullptr) {
    release_(data_);
  } else {
    ::munmap(data_, mapped_bytes_);
  }
}

}  // namespace bitnet
