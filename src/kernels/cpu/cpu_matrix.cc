#include "kernels/cpu/cpu_matrix.h"

#include "base/parallel_status.h"
#include "kernels/source_checks.h"

namespace bitnet {
namespace {

constexpr int64_t kReadPiece_bytes = int64_t{1} << 20;

}  // namespace

WeightType weight_type(DType dtype) {
  switch (dtype) {
    case DType::kF16: return WeightType::kF16;
    case DType::kBF16: return WeightType::kBF16;
    case DType::kQ8_0: return WeightType::kQ8_0;
    case DType::kQ6_K: return WeightType::kQ6_K;
    case DType::kQ4_0: return WeightType::kQ4_0;
    case DType::kQ4_K: return WeightType::kQ4_K;
    default: return WeightType::kF32;
  }
}

Result<std::unique_ptr<Matrix>> prepare_float(const FloatSource& source, const CpuKernels& kernels, ThreadPool& pool) {
  BN_ASSIGN_OR_RETURN(const int64_t row_bytes, check_source(source));
  const WeightType type = weight_type(source.dtype);
  std::unique_ptr<HeadSketch> sketch;
  if (source.use == TableUse::kHead && source.n_cols <= HeadSketch::kMaxCols) {
    BN_ASSIGN_OR_RETURN(sketch, HeadSketch::reserve(source));
  }
  auto matrix = std::make_unique<CpuFloatMatrix>(type, source, row_bytes, std::move(sketch));
  // Whoever hands out the memory keeps what is laid out; for searches alone it can wait.
  if (source.take && matrix->sketch() != nullptr) BN_RETURN_IF_ERROR(matrix->fill_sketch(kernels, pool));
  if (source.use == TableUse::kProducts) BN_RETURN_IF_ERROR(matrix->load_rows(pool));
  return std::unique_ptr<Matrix>(std::move(matrix));
}

Status CpuFloatMatrix::load_rows(ThreadPool& pool) const {
  if (loaded()) return ok();
  const std::lock_guard<std::mutex> lock(loading_);
  if (loaded()) return ok();
  BN_ASSIGN_OR_RETURN(rows_, Buffer::allocate(size_t(n_rows() * row_bytes_)));
  const auto read_rows = [&](int64_t begin, int64_t end) -> Status {
    const int64_t step = std::max(int64_t{1}, kReadPiece_bytes / row_bytes_);
    for (int64_t row = begin; row < end; row += step) {
      BN_RETURN_IF_ERROR(source_.read_rows(row, std::min(step, end - row), rows_.data() + row * row_bytes_));
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(pool, n_rows(), read_rows));
  loaded_.store(true, std::memory_order_release);
  return ok();
}

Status CpuFloatMatrix::fill_sketch(const CpuKernels& kernels, ThreadPool& pool) const {
  if (sketch_->ready()) return ok();
  const std::lock_guard<std::mutex> lock(loading_);
  if (sketch_->ready()) return ok();
  const auto rows = [&](int64_t first, int64_t n, uint8_t* scratch) { return read_rows(first, n, scratch); };
  return sketch_->fill(rows, row_bytes_, n_cols(), type_, kernels, pool);
}

Result<const uint8_t*> CpuFloatMatrix::read_rows(int64_t first, int64_t n_rows, uint8_t* scratch) const {
  if (loaded()) return row(first);
  BN_RETURN_IF_ERROR(source_.read_rows(first, n_rows, reinterpret_cast<std::byte*>(scratch)));
  return scratch;
}

}  // namespace bitnet
