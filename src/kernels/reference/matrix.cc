#include "kernels/reference/reference_backend.h"
#include "kernels/source_checks.h"
#include "quant/blocks.h"

namespace bitnet {

void ReferenceFloatMatrix::widen_row(int64_t row, float* out) const {
  const auto bytes = bytes_.bytes().subspan(size_t(row * row_bytes_), size_t(row_bytes_));
  (void)dequantize(dtype_, bytes, n_cols(), out);  // cannot fail: prepare() checked type and shape
}

Result<std::unique_ptr<Matrix>> ReferenceBackend::prepare(const TernarySource& source, ThreadPool&) const {
  BN_RETURN_IF_ERROR(check_source(source));
  BN_ASSIGN_OR_RETURN(Buffer codes, Buffer::allocate(size_t(source.n_rows * source.n_cols)));
  BN_RETURN_IF_ERROR(source.read_codes(0, source.n_rows, codes.as<uint8_t>()));
  return std::unique_ptr<Matrix>(
      std::make_unique<ReferenceTernaryMatrix>(source.n_rows, source.n_cols, source.scales, std::move(codes)));
}

Result<std::unique_ptr<Matrix>> ReferenceBackend::prepare(const FloatSource& source, ThreadPool&) const {
  BN_ASSIGN_OR_RETURN(const int64_t row_bytes, check_source(source));
  BN_ASSIGN_OR_RETURN(Buffer bytes, Buffer::allocate(size_t(source.n_rows * row_bytes)));
  BN_RETURN_IF_ERROR(source.read_rows(0, source.n_rows, bytes.data()));
  return std::unique_ptr<Matrix>(
      std::make_unique<ReferenceFloatMatrix>(source.dtype, source.n_rows, source.n_cols, row_bytes, std::move(bytes)));
}

Result<std::unique_ptr<Stream>> ReferenceBackend::new_stream(const StreamOptions& options) const {
  if (options.max_cols < 1 || options.n_ctx < 1) {
    return invalid_argument("a stream for {} columns and {} positions: each must be at least 1", options.max_cols,
                            options.n_ctx);
  }
  return std::unique_ptr<Stream>(std::make_unique<ReferenceStream>(options));
}

}  // namespace bitnet
