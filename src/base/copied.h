#pragma once

#include <cstdint>

namespace bitnet {

// Bytes that this process has copied so far, where a reader of memory in place would have copied none.
struct CopiedBytes {
  uint64_t read = 0;         // from files into memory
  uint64_t moved = 0;        // within the host's memory, into another layout or type
  uint64_t transferred = 0;  // between the host and a device
  CopiedBytes operator-(const CopiedBytes& before) const {
    return {read - before.read, moved - before.moved, transferred - before.transferred};
  }
};
CopiedBytes copied_bytes();

// Thread-safe; by those who copy in bulk.
void count_read(uint64_t n_bytes);
void count_moved(uint64_t n_bytes);
void count_transferred(uint64_t n_bytes);

}  // namespace bitnet
