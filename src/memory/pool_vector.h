#pragma once

#include "memory/pool.h"

#include <cstddef>
#include <new>
#include <type_traits>
#include <vector>

namespace bitnet {

// A standard allocator out of the pool of the process.
template <class T>
struct PoolAllocator {
  using value_type = T;
  // The leak sanitizer does not look for pointers in the pool's large blocks.
  static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);

  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(size_t n) {
    if (n > size_t{PTRDIFF_MAX} / sizeof(T)) throw std::bad_alloc();
    void* const data = host_pool().allocate(n * sizeof(T));
    if (data == nullptr) throw std::bad_alloc();
    return static_cast<T*>(data);
  }
  void deallocate(T* data, size_t n) { host_pool().release(data, n * sizeof(T)); }
  template <class U>
  bool operator==(const PoolAllocator<U>&) const {
    return true;
  }
};

template <class T>
using PoolVector = std::vector<T, PoolAllocator<T>>;

}  // namespace bitnet
