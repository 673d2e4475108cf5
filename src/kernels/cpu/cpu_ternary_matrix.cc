#include "kernels/cpu/cpu_matrix.h"

#include "base/copied.h"
#include "base/parallel_status.h"
#include "kernels/source_checks.h"

#include <cstring>
#include <memory>
#include <new>

namespace bitnet {
namespace {

// fn(first_row, n_rows, codes [n_rows, n_cols]) for panels of `panel_rows` rows, by all threads.
template <class Fn>
Status for_each_panel(const TernarySource& source, int64_t panel_rows, ThreadPool& pool, const Fn& fn) {
  const int64_t n_panels = (source.n_rows + panel_rows - 1) / panel_rows;
  return parallel_status(pool, n_panels, [&](int64_t begin, int64_t end) -> Status {
    // From the heap, which hands the same pages out again: the kernel clears what it maps, half of a load's time.
    const std::unique_ptr<uint8_t[]> panel(new (std::nothrow) uint8_t[size_t(panel_rows * source.n_cols)]);
    if (!panel) return make_error(ErrorCode::kResource, "no memory for {} rows of weights", panel_rows);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * panel_rows, n_rows = std::min(panel_rows, source.n_rows - first);
      BN_RETURN_IF_ERROR(source.read_codes(first, n_rows, panel.get()));
      fn(first, n_rows, panel.get());
    }
    return ok();
  });
}

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
constexpr int64_t kSquare = 16;

// Turns [16][16] bytes round: four perfect shuffles of the rows.
void transpose(Bytes16* rows) {
  for (int step = 0; step < 4; ++step) {
    Bytes16 shuffled[kSquare];
    for (int64_t i = 0; i < kSquare / 2; ++i) {
      const Bytes16 a = rows[i], b = rows[i + kSquare / 2];
      shuffled[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      shuffled[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::memcpy(rows, shuffled, sizeof shuffled);
  }
}

// The columns' vector at `columns` from the codes of its rows: squares of bytes, turned round.
void pack_columns(const uint8_t* codes, int64_t n_rows, int64_t n_cols, Packing packing, int64_t column_bytes,
                  uint8_t* columns) {
  for (int64_t first = 0; first < n_cols; first += kSquare) {
    const int64_t n = std::min(kSquare, n_cols - first);
    for (int64_t byte = 0; byte < kVectorBytes; byte += kSquare) {
      Bytes16 square[kSquare] = {};
      for (int64_t j = packing.n_fields() - 1; j >= 0; --j) {
        for (int64_t b = 0; b < kSquare; ++b) {
          const int64_t row = j * kVectorBytes + byte + b;
          Bytes16 code = {};
          if (row < n_rows && n == kSquare) {
            std::memcpy(&code, codes + row * n_cols + first, kSquare);
          } else if (row < n_rows) {
            std::memcpy(&code, codes + row * n_cols + first, size_t(n));
          }
          const Bytes16 twice = square[b] + square[b];
          square[b] = (packing.base3 ? twice + square[b] : twice + twice) + code;
        }
      }
      transpose(square);
      for (int64_t i = 0; i < n; ++i) std::memcpy(columns + (first + i) * column_bytes + byte, &square[i], kSquare);
    }
  }
}

}  // namespace

uint8_t CpuTernaryMatrix::code(int64_t row, int64_t col) const {
  const uint8_t* byte;
  int64_t field;
  if (use_ == TernaryUse::kSomeColumns) {
    const int64_t in_vector = row % packing_.vector_rows();
    byte = piece(col) + row / packing_.vector_rows() * kVectorBytes + in_vector % kVectorBytes;
    field = in_vector / kVectorBytes;
  } else {
    const int64_t block = col / packing_.block_cols(), in_block = col % packing_.block_cols();
    const uint8_t* const word = use_ == TernaryUse::kSomeRows
                                    ? piece(row) + 4 * block
                                    : piece(row / kTileRows) + block * kBlockBytes + row % kTileRows * 4;
    byte = word + in_block % 4;
    field = in_block / 4;
  }
  uint8_t code = 0;
  take_codes(packing_, byte, 1, field, &code);
  return code;
}

void CpuTernaryMatrix::widen_row(int64_t row, float* out) const {
  const float* const groups = n_groups() > 0 ? group_scales(row) : nullptr;
  for (int64_t col = 0; col < n_cols(); ++col) {
    const float weight = float(int(code(row, col)) - 1);
    out[col] = groups == nullptr ? weight : weight * groups[col / scales_.group_cols];
  }
}

const uint8_t* CpuTernaryMatrix::tile(int64_t i, uint8_t* scratch) const {
  if (use_ == TernaryUse::kWhole) return piece(i);
  const int64_t first = i * kTileRows, n_rows = rows_in_tile(i), blocks = n_blocks();
  if (use_ == TernaryUse::kSomeRows) {
    for (int64_t lane = 0; lane < kTileRows; ++lane) {  // lanes without a row repeat the last one
      const uint8_t* const row = piece(first + std::min(lane, n_rows - 1));
      for (int64_t block = 0; block < blocks; ++block)
        std::memcpy(scratch + block * kBlockBytes + lane * 4, row + 4 * block, 4);
    }
    return scratch;
  }
  // 32 rows are half the bytes of one field in each column.
  const uint8_t* const from = piece(0) + first / packing_.vector_rows() * kVectorBytes + first % kVectorBytes;
  const int64_t field = first % packing_.vector_rows() / kVectorBytes;
  for (int64_t block = 0; block < blocks; ++block) {
    uint8_t bytes[4][kTileRows] = {}, codes[kTileRows];
    const int64_t n = std::min(packing_.block_cols(), n_cols() - block * packing_.block_cols());
    for (int64_t col = 0; col < n; ++col) {
      take_codes(packing_, from + (block * packing_.block_cols() + col) * piece_bytes_, kTileRows, field, codes);
      const uint8_t place = packing_.place(col / 4);
      uint8_t* const to = bytes[col % 4];
      for (int64_t row = 0; row < kTileRows; ++row) to[row] = uint8_t(to[row] + codes[row] * place);
    }
    uint8_t* const out = scratch + block * kBlockBytes;
    for (int64_t row = 0; row < kTileRows; ++row) {
      for (int64_t b = 0; b < 4; ++b) out[4 * row + b] = bytes[b][row];
    }
  }
  return scratch;
}

Result<std::unique_ptr<Matrix>> prepare_ternary(const TernarySource& given, const CpuKernels& kernels,
                                                ThreadPool& pool) {
  BN_RETURN_IF_ERROR(check_source(given));
  TernarySource source = given;
  // Scales for groups of columns want whole tiles with groups in whole blocks.
  if (!source.scales.groups.empty()) source.use = TernaryUse::kWhole;
  const Packing packing = {kernels.digits != nullptr && source.scales.groups.empty()};
  const int64_t n_cols = source.n_cols, vector_rows = packing.vector_rows();
  int64_t n_pieces = (source.n_rows + kTileRows - 1) / kTileRows, piece_bytes = packing.tile_bytes(n_cols);
  if (source.use == TernaryUse::kSomeRows) {
    n_pieces = source.n_rows;
    piece_bytes = packing.row_bytes(n_cols);
  } else if (source.use == TernaryUse::kSomeColumns) {
    n_pieces = n_cols;
    piece_bytes = packing.column_bytes(source.n_rows);
  }
  BN_ASSIGN_OR_RETURN(LayoutMemory pieces, take_memory(source.take, "pieces", size_t(n_pieces * piece_bytes)));
  uint8_t* const out = pieces.bytes.as<uint8_t>();
  Status status = ok();
  if (pieces.ready) {
    // Laid out by an earlier load.
  } else if (source.use == TernaryUse::kSomeColumns) {
    status = for_each_panel(source, vector_rows, pool, [&](int64_t first, int64_t n_rows, const uint8_t* codes) {
      pack_columns(codes, n_rows, n_cols, packing, piece_bytes, out + first / vector_rows * kVectorBytes);
    });
  } else {
    status = for_each_panel(source, kTileRows, pool, [&](int64_t first, int64_t n_rows, const uint8_t* codes) {
      for (int64_t lane = 0; lane < n_rows; ++lane, codes += n_cols) {
        if (source.use == TernaryUse::kSomeRows) {
          pack_codes(packing, codes, n_cols, 4, out + (first + lane) * piece_bytes);
        } else {  // 16-row groups follow each other: 64 bytes a group
          pack_codes(packing, codes, n_cols, kBlockBytes, out + first / kTileRows * piece_bytes + 4 * lane);
        }
      }
    });
  }
  BN_RETURN_IF_ERROR(std::move(status));
  if (!pieces.ready) {  // unpacked to codes, packed for the machine
    count_moved(uint64_t(source.n_rows * n_cols) + pieces.bytes.size_bytes());
  }
  return std::unique_ptr<Matrix>(
      std::make_unique<CpuTernaryMatrix>(source, packing, piece_bytes, std::move(pieces.bytes)));
}

}  // namespace bitnet
