#pragma once

#include "base/result.h"
#include "kernels/backend.h"

#include <cstdint>

namespace bitnet {

// What every back end's prepare() asks of a source before it trusts the numbers: shapes that do not wrap, scales that
// fit the shape, a type with float products. The float check gives the bytes of a row.
Status check_source(const TernarySource& source);
Result<int64_t> check_source(const FloatSource& source);

}  // namespace bitnet
