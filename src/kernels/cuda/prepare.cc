#include "base/copied.h"
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

// As many rows as a staging has room for, in multiples; at least one multiple, if that is too large for it too.
int64_t panel_rows(int64_t row_bytes, int64_t n_rows, int64_t multiple) {
  const int64_t n = std::max<int64_t>(int64_t(Staging::kSize_bytes) / row_bytes / multiple, 1) * multiple;
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

size_t tile_bytes(int64_t n_rows, int64_t n_cols) {
  return size_t(cuda::n_tiles(n_rows, cuda::kTileRows) * cuda::n_tiles(n_cols, cuda::kTileCols)) * cuda::kTileBytes;
}

cuda::FloatTable table_of(DType dtype, int64_t n_rows, int64_t n_cols) {
  const DTypeInfo& info = dtype_info(dtype);
  cuda::FloatTable table;
  table.type = table_type(dtype);
  table.row_bytes = n_cols / info.block_size * info.block_bytes;
  table.n_rows = n_rows;
  table.n_cols = n_cols;
  return table;
}
bool has_sketch(TableUse use, const cuda::FloatTable& table) {
  return use == TableUse::kHead && cuda::token_head_takes(table);
}
// Few rows are wanted of a head with a sketch, and of an embedding.
bool stays_on_host(TableUse use, const cuda::FloatTable& table) {
  return use == TableUse::kRows || has_sketch(use, table);
}

cuda::Sketch place_sketch(const Buffer& memory, int64_t n_rows, int64_t n_cols) {
  const size_t n = size_t(n_rows);
  cuda::Sketch sketch;
  sketch.codes = memory.as<int8_t>();
  sketch.steps = reinterpret_cast<float*>(sketch.codes + cuda::sketch_code_bytes(n_rows, n_cols));
  sketch.errors = sketch.steps + n;
  sketch.lengths = sketch.errors + n;
  sketch.n_col_tiles = int(cuda::n_tiles(n_cols, cuda::kTileCols));
  return sketch;
}
size_t sketch_bytes(int64_t n_rows, int64_t n_cols) {
  return cuda::sketch_code_bytes(n_rows, n_cols) + 3 * size_t(n_rows) * sizeof(float);
}

// The device's memory for rows that a staging has no room for; empty where it has.
Result<Buffer> room_for(const CudaBackend& backend, size_t size_bytes) {
  if (size_bytes <= Staging::kSize_bytes) return Buffer();
  return backend.allocate(size_bytes);
}

}  // namespace

Status CudaBackend::reserve(std::span<const WeightPlan> plan) const {
  size_t total_bytes = 0;
  for (const WeightPlan& weight : plan) {
    const cuda::FloatTable table = table_of(weight.dtype, weight.n_rows, weight.n_cols);
    size_t bytes = 0;
    if (!weight.table) {
      const bool vector = weight.n_rows == 1;
      bytes = vector ? size_t(weight.n_cols) * sizeof(float) : tile_bytes(weight.n_rows, weight.n_cols);
    } else if (has_sketch(weight.use, table)) {
      bytes = sketch_bytes(weight.n_rows, weight.n_cols);
    } else if (!stays_on_host(weight.use, table)) {
      bytes = size_t(weight.n_rows * table.row_bytes);
    }
    total_bytes += Arena::padded(bytes);
  }
  Result<Buffer> memory = allocate_alone(total_bytes);
  if (!memory) return std::move(memory.error().add_context("taking memory for a model's weights"));
  arena_ = std::make_unique<Arena>(*std::move(memory));
  return ok();
}

Result<std::unique_ptr<Matrix>> CudaBackend::prepare(const TernarySource& source, ThreadPool& pool) const {
  BN_RETURN_IF_ERROR(check_source(source));
  BN_RETURN_IF_ERROR(enter());
  cuda::TernaryWeights weights;
  weights.n_rows = source.n_rows;
  weights.n_cols = source.n_cols;
  weights.n_row_tiles = cuda::n_tiles(source.n_rows, cuda::kTileRows);
  weights.n_col_tiles = cuda::n_tiles(source.n_cols, cuda::kTileCols);
  weights.alpha = source.scales.tensor;
  BN_ASSIGN_OR_RETURN(Buffer words, allocate(tile_bytes(source.n_rows, source.n_cols)));
  Buffer groups;
  if (!source.scales.groups.empty()) {
    const auto bytes = std::as_bytes(std::span(source.scales.groups));
    BN_ASSIGN_OR_RETURN(groups, allocate(bytes.size()));
    BN_RETURN_IF_ERROR(upload(bytes, groups.data()));
    weights.groups = groups.as<float>();
    weights.group_cols = source.scales.group_cols;
  }
  BN_ASSIGN_OR_RETURN(std::unique_ptr<Staging> staging, staging_.take());
  const int64_t n_panel = panel_rows(source.n_cols, source.n_rows, cuda::kTileRows);
  const size_t panel_bytes = size_t(n_panel * source.n_cols);
  BN_ASSIGN_OR_RETURN(const Buffer device_panel, room_for(*this, panel_bytes));
  BN_ASSIGN_OR_RETURN(const Buffer host_panel, Buffer::allocate(device_panel.size_bytes()));
  const bool staged = device_panel.size_bytes() == 0;
  auto* const panel = reinterpret_cast<uint8_t*>(staged ? staging->host() : host_panel.data());
  auto* const codes = reinterpret_cast<uint8_t*>(staged ? staging->device() : device_panel.data());
  const int64_t row_tile_words = weights.n_col_tiles * cuda::kTileWords;
  for (int64_t row = 0; row < source.n_rows; row += n_panel) {
    const int64_t n = std::min(n_panel, source.n_rows - row);
    BN_RETURN_IF_ERROR(read_panel(pool, row, n, [&](int64_t first, int64_t n_rows, int64_t at) {
      return source.read_codes(first, n_rows, panel + at * source.n_cols);
    }));
    BN_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(codes, panel, size_t(n * source.n_cols), cudaMemcpyHostToDevice, staging->stream()),
        "copying weights to the device");
    count_transferred(uint64_t(n * source.n_cols));
    cuda::pack_tiles(staging->stream(), codes, n, source.n_cols,
                     words.as<uint32_t>() + row / cuda::kTileRows * row_tile_words);
    BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(staging->stream()), "packing weights");
  }
  BN_CUDA_RETURN_IF_ERROR(cudaGetLastError(), "packing weights");
  staging_.give_back(std::move(staging));
  weights.words = words.as<uint32_t>();
  return std::unique_ptr<Matrix>(
      std::make_unique<CudaTernaryMatrix>(source.n_rows, source.n_cols, std::move(words), std::move(groups), weights));
}

Result<std::unique_ptr<Matrix>> CudaBackend::prepare(const FloatSource& source, ThreadPool& pool) const {
  BN_ASSIGN_OR_RETURN(const int64_t row_bytes, check_source(source));
  BN_RETURN_IF_ERROR(enter());
  const size_t size_bytes = size_t(source.n_rows * row_bytes);
  BN_ASSIGN_OR_RETURN(Buffer on_host, Buffer::allocate(size_bytes));
  BN_RETURN_IF_ERROR(read_panel(pool, 0, source.n_rows, [&](int64_t first, int64_t n_rows, int64_t at) {
    return source.read_rows(first, n_rows, on_host.data() + at * row_bytes);
  }));
  cuda::FloatTable table = table_of(source.dtype, source.n_rows, source.n_cols);
  const std::byte* const from = on_host.data();
  Buffer rows;
  PinnedRows host_rows;
  if (stays_on_host(source.use, table)) {
    host_rows = PinnedRows(std::move(on_host));
    table.data = host_rows.data();
  }
  if (table.data == nullptr) {
    BN_ASSIGN_OR_RETURN(rows, allocate(size_bytes));
    BN_RETURN_IF_ERROR(upload({from, size_bytes}, rows.data()));
    table.data = rows.as<uint8_t>();
  }
  Buffer memory;
  cuda::Sketch sketch;
  if (has_sketch(source.use, table)) {
    BN_ASSIGN_OR_RETURN(memory, allocate(sketch_bytes(source.n_rows, source.n_cols)));
    sketch = place_sketch(memory, source.n_rows, source.n_cols);
    BN_ASSIGN_OR_RETURN(std::unique_ptr<Staging> staging, staging_.take());
    const int64_t n_panel = panel_rows(row_bytes, source.n_rows, 1);
    for (int64_t row = 0; row < source.n_rows; row += n_panel) {
      cuda::FloatTable panel = table;
      panel.n_rows = std::min(n_panel, source.n_rows - row);
      panel.data = table.data + row * row_bytes;
      if (const size_t n = size_t(panel.n_rows * row_bytes); n <= Staging::kSize_bytes) {
        BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(staging->device(), panel.data, n, cudaMemcpyDefault, staging->stream()),
                                "copying the head to the device");
        panel.data = reinterpret_cast<const uint8_t*>(staging->device());
      }
      cuda::build_sketch(staging->stream(), panel, row, sketch);
    }
    BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(staging->stream()), "copying the head coarsely");
    BN_CUDA_RETURN_IF_ERROR(cudaGetLastError(), "copying the head coarsely");
    staging_.give_back(std::move(staging));
  }
  return std::unique_ptr<Matrix>(
      std::make_unique<CudaFloatMatrix>(table, std::move(rows), std::move(host_rows), std::move(memory), sketch));
}

}  // namespace bitnet
