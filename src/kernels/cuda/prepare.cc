#include "base/parallel_status.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_matrix.h"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/source_checks.h"

#include <algorithm>

// Weights to the device, panel by panel: the host reads rows, the device lays them out.
namespace bitnet {
namespace {

constexpr int64_t kPanel_bytes = int64_t{32} << 20;

int64_t panel_rows(int64_t row_bytes, int64_t n_rows, int64_t multiple) {
  const int64_t n = std::max<int64_t>(kPanel_bytes / row_bytes / multiple, 1) * multiple;
  return std::min(n, (n_rows + multiple - 1) / multiple * multiple);
}

cuda::TableType table_type(DType dtype) {
  switch (dtype) {
    case DType::kF16: return cuda::TableType::kF16;
    case DType::kBF16: return cuda::TableType::kBF16;
    case DType::kQ8_0: return cuda::TableType::kQ8_0;
    case DType::kQ4_0: return cuda::TableType::kQ4_0;
    case DType::kQ4_K: return cuda::TableType::kQ4_K;
    case DType::kQ6_K: return cuda::TableType::kQ6_K;
    default: return cuda::TableType::kF32;
  }
}

// Rows [begin, begin + n) by all threads of the pool, each a part of its own.
template <class Read>
Status read_panel(ThreadPool& pool, int64_t begin, int64_t n, const Read& read) {
  return parallel_status(pool, n, [&](int64_t from, int64_t to) { return read(begin + from, to - from, from); });
}

}  // namespace

Result<std::unique_ptr<Matrix>> CudaBackend::prepare(const TernarySource& source, ThreadPool& pool) const {
  BN_RETURN_IF_ERROR(check_source(source));
  cuda::TernaryWeights weights;
  weights.n_rows = source.n_rows;
  weights.n_cols = source.n_cols;
  weights.n_row_tiles = cuda::n_tiles(source.n_rows, cuda::kTileRows);
  weights.n_col_tiles = cuda::n_tiles(source.n_cols, cuda::kTileCols);
  weights.alpha = source.scales.tensor;
  const int64_t row_tile_words = weights.n_col_tiles * cuda::kTileWords;
  BN_ASSIGN_OR_RETURN(Buffer words, allocate(size_t(weights.n_row_tiles * row_tile_words) * sizeof(uint32_t)));
  Buffer groups;
  if (!source.scales.groups.empty()) {
    const auto bytes = std::as_bytes(std::span(source.scales.groups));
    BN_ASSIGN_OR_RETURN(groups, allocate(bytes.size()));
    BN_RETURN_IF_ERROR(upload(bytes, groups.data()));
    weights.groups = groups.as<float>();
    weights.group_cols = source.scales.group_cols;
  }
  const int64_t n_panel = panel_rows(source.n_cols, source.n_rows, cuda::kTileRows);
  BN_ASSIGN_OR_RETURN(const Buffer panel, Buffer::allocate(size_t(n_panel * source.n_cols)));
  BN_ASSIGN_OR_RETURN(const Buffer codes, allocate(size_t(n_panel * source.n_cols)));
  for (int64_t row = 0; row < source.n_rows; row += n_panel) {
    const int64_t n = std::min(n_panel, source.n_rows - row);
    BN_RETURN_IF_ERROR(read_panel(pool, row, n, [&](int64_t first, int64_t n_rows, int64_t at) {
      return source.read_codes(first, n_rows, panel.as<uint8_t>() + at * source.n_cols);
    }));
    BN_RETURN_IF_ERROR(upload(panel.bytes().first(size_t(n * source.n_cols)), codes.data()));
    cuda::pack_tiles(cudaStreamLegacy, codes.as<uint8_t>(), n, source.n_cols,
                     words.as<uint32_t>() + row / cuda::kTileRows * row_tile_words);
    BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(cudaStreamLegacy), "packing weights");
  }
  BN_CUDA_RETURN_IF_ERROR(cudaGetLastError(), "packing weights");
  weights.words = words.as<uint32_t>();
  return std::unique_ptr<Matrix>(
      std::make_unique<CudaTernaryMatrix>(source.n_rows, source.n_cols, std::move(words), std::move(groups), weights));
}

Result<std::unique_ptr<Matrix>> CudaBackend::prepare(const FloatSource& source, ThreadPool& pool) const {
  BN_ASSIGN_OR_RETURN(const int64_t row_bytes, check_source(source));
  BN_ASSIGN_OR_RETURN(Buffer rows, allocate(size_t(source.n_rows * row_bytes)));
  const int64_t n_panel = panel_rows(row_bytes, source.n_rows, 1);
  BN_ASSIGN_OR_RETURN(const Buffer panel, Buffer::allocate(size_t(n_panel * row_bytes)));
  for (int64_t row = 0; row < source.n_rows; row += n_panel) {
    const int64_t n = std::min(n_panel, source.n_rows - row);
    BN_RETURN_IF_ERROR(read_panel(pool, row, n, [&](int64_t first, int64_t n_rows, int64_t at) {
      return source.read_rows(first, n_rows, panel.data() + at * row_bytes);
    }));
    BN_RETURN_IF_ERROR(upload(panel.bytes().first(size_t(n * row_bytes)), rows.data() + row * row_bytes));
  }
  cuda::FloatTable table;
  table.data = rows.as<uint8_t>();
  table.type = table_type(source.dtype);
  table.row_bytes = row_bytes;
  table.n_rows = source.n_rows;
  table.n_cols = source.n_cols;
  Buffer memory;
  cuda::Sketch sketch;
  if (source.use == TableUse::kHead && cuda::token_head_takes(table)) {
    const size_t n = size_t(source.n_rows), codes_bytes = n * size_t(source.n_cols);
    BN_ASSIGN_OR_RETURN(memory, allocate(codes_bytes + 3 * n * sizeof(float)));
    auto* const codes = memory.as<int8_t>();
    auto* const steps = reinterpret_cast<float*>(codes + codes_bytes);
    cuda::build_sketch(cudaStreamLegacy, table, codes, steps, steps + n, steps + 2 * n);
    BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(cudaStreamLegacy), "copying the head coarsely");
    sketch = {codes, steps, steps + n, steps + 2 * n};
  }
  return std::unique_ptr<Matrix>(std::make_unique<CudaFloatMatrix>(source.n_rows, source.n_cols, std::move(rows), table,
                                                                   std::move(memory), sketch));
}

}  // namespace bitnet
