#pragma once

#include "base/result.h"
#include "memory/call_site.h"
#include "memory/source.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace bitnet {

// Owned, zeroed memory that begins on a cache line: the host's from the pool of the process, or another source's.
// Movable, not copyable.
class Buffer {
 public:
  // huge_pages: false for memory that fills up slowly, as a huge page is there in full from its first byte on;
  // untouched pages then cost nothing.
  static Result<Buffer> allocate(size_t size_bytes, bool huge_pages = true, CallSite site = CallSite::here());
  // From a device or another special source, which says itself what it cannot give.
  static Result<Buffer> allocate_from(const MemorySource& source, size_t size_bytes);
  // What a source has given already and is to take back.
  static Buffer adopt(const MemorySource& source, std::byte* data, size_t size_bytes);
  // A part of what somebody else owns and keeps longer, an arena.
  static Buffer borrow(std::byte* data, size_t size_bytes);
  Buffer() = default;
  ~Buffer();
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(owner_, other.owner_);
    std::swap(source_, other.source_);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  std::span<std::byte> bytes() const { return {data_, size_bytes_}; }

 private:
  enum class Owner : uint8_t { kPool, kPoolSmallPages, kSource, kOther };

  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  Owner owner_ = Owner::kOther;
  const MemorySource* source_ = nullptr;
};

}  // namespace bitnet
