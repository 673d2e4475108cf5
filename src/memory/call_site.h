#pragma once

#include <cstdint>

namespace bitnet {

// Where an allocation was asked for: a line of source, or an address of code.
struct CallSite {
  const char* file = nullptr;
  uint32_t line = 0;
  const void* address = nullptr;
  static constexpr CallSite here(const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
    return {file, line, nullptr};
  }
};

}  // namespace bitnet
