#include "memory/source.h"

#include "base/checked.h"

#include <sys/mman.h>
#include <algorithm>
#include <cstdint>

namespace bitnet {
namespace {

constexpr size_t kPage_bytes = 4096, kHugePage_bytes = size_t{2} << 20;

Result<std::byte*> take_pages(const MemorySource&, const MemoryRequest& request) {
  const bool huge = request.huge_pages && request.size_bytes >= kHugePage_bytes;
  const size_t align_bytes = std::max(request.align_bytes, huge ? kHugePage_bytes : kPage_bytes);
  const auto padded = checked_add(request.size_bytes, align_bytes + kPage_bytes);
  if (!padded || *padded > uint64_t(PTRDIFF_MAX)) {
    return make_error(ErrorCode::kResource, "cannot allocate {} bytes of memory", request.size_bytes);
  }
  const size_t mapped_bytes = size_t(round_up(int64_t(request.size_bytes), kPage_bytes));
  // What the alignment leaves over on both sides goes back at once.
  const size_t reserved_bytes = mapped_bytes + (align_bytes > kPage_bytes ? align_bytes : 0);
  void* const raw = ::mmap(nullptr, reserved_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return make_error(ErrorCode::kResource, "cannot allocate {} bytes of memory", request.size_bytes);
  }
  std::byte* data = static_cast<std::byte*>(raw);
  const size_t head_bytes = (align_bytes - reinterpret_cast<uintptr_t>(data) % align_bytes) % align_bytes;
  if (head_bytes > 0) ::munmap(data, head_bytes);
  data += head_bytes;
  const size_t tail_bytes = reserved_bytes - head_bytes - mapped_bytes;
  if (tail_bytes > 0) ::munmap(data + mapped_bytes, tail_bytes);
#ifdef MADV_HUGEPAGE
  if (huge) ::madvise(data, mapped_bytes, MADV_HUGEPAGE);
#endif
  return data;
}

void give_back_pages(const MemorySource&, std::byte* data, size_t size_bytes) {
  ::munmap(data, size_t(round_up(int64_t(size_bytes), kPage_bytes)));
}

void forget_pages(const MemorySource&, std::byte* data, size_t size_bytes) {
  ::madvise(data, size_bytes, MADV_DONTNEED);
}

}  // namespace

const MemorySource& host_source() {
  static constexpr MemorySource source{"host", take_pages, give_back_pages, forget_pages};
  return source;
}

}  // namespace bitnet
