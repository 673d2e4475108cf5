#pragma once

#include "base/result.h"

#include <cstddef>
#include <span>
#include <utility>

namespace bitnet {

// Owned, zeroed memory aligned to a cache line; large ones may ask for huge pages. Untouched pages cost nothing.
// Movable, not copyable.
class Buffer {
 public:
  // huge_pages: false for memory that fills up slowly, as a huge page is there in full from its first byte on.
  static Result<Buffer> allocate(size_t size_bytes, bool huge_pages = true);
  // Owns what another allocator gave, a device's memory for one; `release` takes it back.
  using Release = void (*)(std::byte* data);
  static Buffer adopt(std::byte* data, size_t size_bytes, Release release);
  Buffer() = default;
  ~Buffer();
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)),
        mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
        release_(std::exchange(other.release_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    std::swap(release_, other.release_);
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
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  size_t mapped_bytes_ = 0;
  Release release_ = nullptr;  // null: mapped by allocate()
};

}  // namespace bitnet
