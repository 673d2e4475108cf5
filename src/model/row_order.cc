#include "model/row_order.h"

#include "tensor/dtype.h"

#include <algorithm>
#include <utility>

namespace bitnet {
namespace {

template <class Out, class Reader>
auto reordered_reader(Reader read, const RowOrder& order, size_t row_size) {
  return [read = std::move(read), order, row_size](int64_t row_begin, int64_t n_rows, Out* out) -> Status {
    for (int64_t row = row_begin; row < row_begin + n_rows; ++row, out += row_size) {
      BN_RETURN_IF_ERROR(read(order.source_row(row), 1, out));
    }
    return ok();
  };
}

}  // namespace

int64_t RowOrder::source_row(int64_t row) const {
  if (kind == kSame) return row;
  const int64_t head = row / head_dim, i = row % head_dim, half = rope_dim / 2;
  if (i >= rope_dim) return row;
  const int64_t from = kind == kInterleave ? i % 2 * half + i / 2 : i % half * 2 + i / half;
  return head * head_dim + from;
}

LinearSource reorder_rows(LinearSource source, const RowOrder& order) {
  if (order.kind == RowOrder::kSame) return source;
  if (auto* floats = std::get_if<FloatSource>(&source.weight)) {
    const DTypeInfo& info = dtype_info(floats->dtype);
    const size_t row_bytes = size_t(floats->n_cols / info.block_size * info.block_bytes + info.row_scale_bytes);
    floats->read_rows = reordered_reader<std::byte>(std::move(floats->read_rows), order, row_bytes);
    return source;
  }
  TernarySource& ternary = *std::get_if<TernarySource>(&source.weight);
  ternary.read_codes = reordered_reader<uint8_t>(std::move(ternary.read_codes), order, size_t(ternary.n_cols));
  if (ternary.scales.groups.empty()) return source;
  const int64_t n_groups = ternary.n_cols / ternary.scales.group_cols;
  const std::vector<float> groups = ternary.scales.groups;
  for (int64_t row = 0; row < ternary.n_rows; ++row) {
    std::copy_n(groups.begin() + order.source_row(row) * n_groups, n_groups,
                ternary.scales.groups.begin() + row * n_groups);
  }
  return source;
}

}  // namespace bitnet
