#pragma once

#include "memory/source.h"

namespace bitnet {

// A GPU's memory, and pages of the host that it reads and writes by itself.
const MemorySource& device_memory(int device);
const MemorySource& pinned_memory(int device);

}  // namespace bitnet
