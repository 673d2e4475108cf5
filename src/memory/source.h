#pragma once

#include "base/result.h"

#include <cstddef>

namespace bitnet {

struct MemoryRequest {
  size_t size_bytes = 0;
  size_t align_bytes = 4096;  // a power of two
  bool huge_pages = false;
};

// Where memory comes from, in large pieces: the host's pages, its pinned pages, a device. The table outlives everything
// taken from it. Functions are thread-safe.
struct MemorySource {
  const char* name;  // "host", "pinned", "cuda"
  // Zeroed memory, or kResource with what was wanted and what there is.
  Result<std::byte*> (*take)(const MemorySource& self, const MemoryRequest& request);
  void (*give_back)(const MemorySource& self, std::byte* data, size_t size_bytes);
  // Whole pages whose contents nobody wants: they read as zero afterwards and take no room. Null: the source cannot.
  void (*forget)(const MemorySource& self, std::byte* data, size_t size_bytes);
  int device = 0;  // of several
};

// Anonymous pages. Untouched ones cost nothing.
const MemorySource& host_source();

}  // namespace bitnet
