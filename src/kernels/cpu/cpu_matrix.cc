#include "kernels/cpu/cpu_matrix.h"

#include "base/checked.h"
#include "base/parallel_status.h"
#include "kernels/source_checks.h"

#include <cstring>

namespace bitnet {
namespace {

constexpr int64_t kReadPiece_bytes = int64_t{1} << 20;

uint32_t load_word(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

}  // namespace

namespace {

// Four columns' codes a word: bytes stay below 256 in both packings, so that words add without carries.
uint32_t pack_fields(const uint8_t* c) {
  return load_word(c) | load_word(c + 4) << 2 | load_word(c + 8) << 4 | load_word(c + 12) << 6;
}
uint32_t pack_digits(const uint8_t* c) {
  return load_word(c) + 3 * load_word(c + 4) + 9 * load_word(c + 8) + 27 * load_word(c + 12) + 81 * load_word(c + 16);
}

// One row of codes, padded to whole blocks with code 1, into its lane of a tile.
template <int64_t kCols, uint32_t (*pack)(const uint8_t*)>
void pack_row(const uint8_t* codes, int64_t n_cols, int64_t lane, uint8_t* tile) {
  uint8_t* out = tile + lane * 4;  // 16-row groups follow each other: 64 bytes a group
  const int64_t n_full = n_cols / kCols;
  for (int64_t block = 0; block < n_full; ++block, out += kBlockBytes, codes += kCols) {
    const uint32_t word = pack(codes);
    std::memcpy(out, &word, 4);
  }
  if (n_cols % kCols != 0) {
    uint8_t last[kCols];
    std::memset(last, 1, sizeof last);
    std::memcpy(last, codes, size_t(n_cols % kCols));
    const uint32_t word = pack(last);
    std::memcpy(out, &word, 4);
  }
}

}  // namespace

void pack_tile_row(const uint8_t* codes, int64_t n_cols, int64_t lane, uint8_t* tile) {
  pack_row<kBlockCols, pack_fields>(codes, n_cols, lane, tile);
}

void CpuTernaryMatrix::widen_row(int64_t row, float* out) const {
  constexpr int kPowers[5] = {1, 3, 9, 27, 81};
  const uint8_t* const lane = tile(row / kTileRows) + row % kTileRows * 4;
  const float* const groups = n_groups() > 0 ? group_scales(row) : nullptr;
  for (int64_t col = 0; col < n_cols(); ++col) {
    const int64_t in_block = col % block_cols();
    const int byte = lane[col / block_cols() * kBlockBytes + in_block % 4];
    const int code = base3_ ? byte / kPowers[in_block / 4] % 3 : byte >> (in_block / 4 * 2) & 3;
    const float weight = float(code - 1);
    out[col] = groups == nullptr ? weight : weight * groups[col / scales_.group_cols];
  }
}

Result<std::unique_ptr<Matrix>> prepare_ternary(const TernarySource& source, const CpuKernels& kernels,
                                                ThreadPool& pool) {
  BN_RETURN_IF_ERROR(check_source(source));
  // Scales for groups of columns want groups in whole blocks.
  const bool base3 = kernels.base3 != nullptr && source.scales.groups.empty();
  const auto pack = base3 ? pack_row<kBase3BlockCols, pack_digits> : pack_row<kBlockCols, pack_fields>;
  const int64_t n_cols = source.n_cols, n_tiles = (source.n_rows + kTileRows - 1) / kTileRows;
  const int64_t block_cols = base3 ? kBase3BlockCols : kBlockCols;
  const int64_t tile_bytes = (n_cols + block_cols - 1) / block_cols * kBlockBytes;
  BN_ASSIGN_OR_RETURN(Buffer tiles, Buffer::allocate(size_t(n_tiles * tile_bytes)));
  const auto pack_tiles = [&](int64_t begin, int64_t end) -> Status {
    BN_ASSIGN_OR_RETURN(const Buffer panel, Buffer::allocate(size_t(kTileRows * n_cols)));
    uint8_t* const codes = panel.as<uint8_t>();
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* const tile = tiles.as<uint8_t>() + i * tile_bytes;
      const int64_t first = i * kTileRows, n_rows = std::min(kTileRows, source.n_rows - first);
      BN_RETURN_IF_ERROR(source.read_codes(first, n_rows, codes));
      if (n_rows < kTileRows) std::memset(tile, 0, size_t(tile_bytes));
      for (int64_t lane = 0; lane < n_rows; ++lane) pack(codes + lane * n_cols, n_cols, lane, tile);
    }
    return ok();
  };
  BN_RETURN_IF_ERROR(parallel_status(pool, n_tiles, pack_tiles));
  return std::unique_ptr<Matrix>(
      std::make_unique<CpuTernaryMatrix>(source.n_rows, n_cols, source.scales, base3, std::move(tiles)));
}

Result<std::unique_ptr<Matrix>> prepare_float(const FloatSource& source, const CpuKernels& kernels, ThreadPool& pool) {
  BN_ASSIGN_OR_RETURN(const int64_t row_bytes, check_source(source));
  WeightType type = WeightType::kF32;
  switch (source.dtype) {
    case DType::kF16: type = WeightType::kF16; break;
    case DType::kBF16: type = WeightType::kBF16; break;
    case DType::kQ8_0: type = WeightType::kQ8_0; break;
    case DType::kQ6_K: type = WeightType::kQ6_K; break;
    case DType::kQ4_0: type = WeightType::kQ4_0; break;
    case DType::kQ4_K: type = WeightType::kQ4_K; break;
    default: break;
  }
  std::unique_ptr<const HeadSketch> sketch;
  if (source.use == TableUse::kHead && source.n_cols <= HeadSketch::kMaxCols) {
    BN_ASSIGN_OR_RETURN(sketch, HeadSketch::build(source, row_bytes, kernels.widen[size_t(type)], pool));
  }
  auto matrix = std::make_unique<CpuFloatMatrix>(type, source, row_bytes, std::move(sketch));
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

Result<const uint8_t*> CpuFloatMatrix::read_row(int64_t i, uint8_t* scratch) const {
  if (loaded()) return row(i);
  BN_RETURN_IF_ERROR(source_.read_rows(i, 1, reinterpret_cast<std::byte*>(scratch)));
  return scratch;
}

}  // namespace bitnet
