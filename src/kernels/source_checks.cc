#include "kernels/source_checks.h"

#include "kernels/cpu/kernel_table.h"

namespace bitnet {

Status check_source(const TernarySource& source) {
  const int64_t n_rows = source.n_rows, n_cols = source.n_cols;
  if (n_rows < 1 || n_cols < 1) return invalid_argument("a ternary matrix of shape [{}, {}] is empty", n_rows, n_cols);
  if (n_cols > kMaxTernaryCols || n_rows > (int64_t{1} << 40) / n_cols) {
    return unsupported("a ternary matrix of shape [{}, {}] is larger than the kernels take ({} columns, 2^40 weights)",
                       n_rows, n_cols, kMaxTernaryCols);
  }
  const TernaryScales& scales = source.scales;
  if (scales.groups.empty()) return ok();
  if (scales.group_cols < 1 || scales.group_cols % kBlockCols != 0 || n_cols % scales.group_cols != 0) {
    return unsupported("scales for groups of {} columns: expected a multiple of {} that divides {} columns",
                       scales.group_cols, kBlockCols, n_cols);
  }
  const int64_t expected = n_rows * (n_cols / scales.group_cols);
  if (int64_t(scales.groups.size()) != expected) {
    return invalid_argument("a ternary matrix of shape [{}, {}] has {} group scales, expected {}", n_rows, n_cols,
                            scales.groups.size(), expected);
  }
  return ok();
}

Result<int64_t> check_source(const FloatSource& source) {
  switch (source.dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
    case DType::kQ6_K:
    case DType::kQ4_0:
    case DType::kQ4_K: break;
    default: return unsupported("no products with weights of type {}", dtype_info(source.dtype).name);
  }
  if (source.n_rows < 1 || source.n_cols < 1) {
    return invalid_argument("a {} matrix of shape [{}, {}] is empty", dtype_info(source.dtype).name, source.n_rows,
                            source.n_cols);
  }
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, tensor_bytes(source.dtype, {source.n_rows, source.n_cols}));
  return int64_t(size_bytes) / source.n_rows;
}

Result<LayoutMemory> take_memory(const TakeMemory& take, std::string_view part, size_t size_bytes) {
  if (take) return take(part, size_bytes);
  BN_ASSIGN_OR_RETURN(Buffer fresh, Buffer::allocate(size_bytes));
  return LayoutMemory{std::move(fresh), false};
}

}  // namespace bitnet
