#pragma once

#include "memory/buffer.h"

#include <vector>

namespace bitnet {

// One array that lies on several GPUs, a copy or a part on each. Whoever has it knows it by its address on the first.
Buffer join_parts(std::vector<Buffer> parts, size_t size_bytes);

// Where on GPU number `rank` of its group the place lies that is `first` on the first one; null where `first` is.
std::byte* part_of(const void* first, int rank);

}  // namespace bitnet
