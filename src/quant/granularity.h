#pragma once

#include <cstdint>

namespace bitnet {

// Which values of a matrix [n_rows, n_cols] share a scale.
enum class Granularity : uint8_t {
  kTensor,
  kRow,
  kColumn,
  kGroup,  // runs of group_cols columns of a row
};

}  // namespace bitnet
