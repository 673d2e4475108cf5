#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define BN_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BN_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef BN_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#define BN_NO_ADDRESS_SANITIZER __attribute__((no_sanitize("address"), noinline))
#else
#define BN_NO_ADDRESS_SANITIZER
#endif

// Tells the address sanitizer which bytes of the pool belong to somebody; nothing without it.
namespace bitnet {

inline void poison([[maybe_unused]] const void* data, [[maybe_unused]] size_t size_bytes) {
#ifdef BN_ADDRESS_SANITIZER
  __asan_poison_memory_region(data, size_bytes);
#endif
}
inline void unpoison([[maybe_unused]] const void* data, [[maybe_unused]] size_t size_bytes) {
#ifdef BN_ADDRESS_SANITIZER
  __asan_unpoison_memory_region(data, size_bytes);
#endif
}

// A free block holds the list that it is in, poisoned or not.
struct FreeBlock {
  FreeBlock* next;
};
BN_NO_ADDRESS_SANITIZER inline FreeBlock* next_of(const FreeBlock* block) { return block->next; }
BN_NO_ADDRESS_SANITIZER inline void set_next(FreeBlock* block, FreeBlock* next) { block->next = next; }

}  // namespace bitnet
