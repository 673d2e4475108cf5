#pragma once

#include "base/result.h"
#include "kernels/backend.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bitnet {

// What every back end's prepare() asks of a source before it trusts the numbers: shapes that do not wrap, scales that
// fit the shape, a type with float products. The float check gives the bytes of a row.
Status check_source(const TernarySource& source);
Result<int64_t> check_source(const FloatSource& source);
// From `take`, or fresh where that is null.
Result<LayoutMemory> take_memory(const TakeMemory& take, std::string_view part, size_t size_bytes);

}  // namespace bitnet
