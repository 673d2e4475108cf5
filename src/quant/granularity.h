#pragma once

#include "tensor/view.h"

#include <cstdint>
#include <span>

namespace bitnet {

// Which values of a matrix [n_rows, n_cols] share a scale.
enum class Granularity : uint8_t {
  kTensor,
  kRow,
  kColumn,
  kGroup,  // runs of group_cols columns of a row
};

// Row-major values as a matrix [n_rows, n_cols], all finite; else the error names the count, or row and column.
Result<TensorView> finite_matrix(std::span<const float> values, int64_t n_rows, int64_t n_cols);

// The matrix with one row for each scale, in order of the scales: [n_groups, values a group]. Copies nothing; refused
// where groups do not divide the rows of a contiguous matrix.
Result<TensorView> grouped(const TensorView& matrix, Granularity granularity, int64_t group_cols);

}  // namespace bitnet
