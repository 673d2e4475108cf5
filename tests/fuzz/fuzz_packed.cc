// Packed ternary matrices: the first byte chooses a layout, the next two a shape; or the container with checksums.
#include "format/packed_ternary.h"
#include "quant/ternary.h"
#include "tensor_oracle.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace bitnet;

namespace {

// What is accepted consists of codes and usable scales, and an encoder makes the same codes of it.
void check_layout(TernaryLayout layout, int64_t n_rows, int64_t n_cols, std::span<const std::byte> bytes) {
  const TernaryView view{layout, n_rows, n_cols, bytes};
  std::vector<uint8_t> codes(size_t(n_rows * n_cols), 9);
  if (!decode_ternary(view, 0, n_rows, codes.data())) return;
  for (const uint8_t code : codes) fuzz::require(code <= 2);
  TernaryScales scales;
  if (ternary_layout_info(layout).scales != ScaleKind::kApart) {
    const auto stored = ternary_scales(view);
    if (!stored) return;
    scales = *stored;
  }
  const auto again = encode_ternary(layout, n_rows, n_cols, codes, scales);
  fuzz::require(again.has_value());
  if (!has_fixed_size(layout)) fuzz::require(again->size() == bytes.size());
  std::vector<uint8_t> reread(codes.size(), 9);
  fuzz::require(decode_ternary({layout, n_rows, n_cols, *again}, 0, n_rows, reread.data()).has_value());
  fuzz::require(reread == codes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto header = packed_ternary_header(bytes);
  if (header && header->n_rows <= 4096 && header->n_cols <= 4096) {
    const auto read = read_packed_ternary(bytes, header->n_rows, header->n_cols);
    if (read) {
      for (const uint8_t code : read->codes) fuzz::require(code <= 2);
      fuzz::require(write_packed_ternary(header->n_rows, header->n_cols, read->codes, read->scales).has_value());
    }
  }
  // Rows and columns in steps that the layouts take.
  const int64_t n_rows = data[1] % 8 == 7 ? 32 * (data[1] / 8 % 4 + 1) : data[1] % 40 + 1;
  const int64_t n_cols = data[2] % 2 == 0 ? 32 * (data[2] / 2 % 16 + 1) : data[2] + 1;
  check_layout(TernaryLayout(data[0] % kTernaryLayouts), n_rows, n_cols, bytes.subspan(3));
  return 0;
}
