#include "kernels/cpu/cpu_matrix.h"

#include "base/checked.h"
#include "base/parallel_status.h"
#include "kernels/source_checks.h"

#include <cstring>

namespace bitnet {
namespace {

// What a code counts as field or digit j of a byte.
constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
uint8_t place_of(int64_t j, bool base3) { return base3 ? kPowers[j] : uint8_t(1 << 2 * j); }

uint32_t load_word(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

// Four columns' codes a word: bytes stay below 256 in both packings, so that words add without carries.
uint32_t pack_fields(const uint8_t* c) {
  return load_word(c) | load_word(c + 4) << 2 | load_word(c + 8) << 4 | load_word(c + 12) << 6;
}
uint32_t pack_digits(const uint8_t* c) {
  return load_word(c) + 3 * load_word(c + 4) + 9 * load_word(c + 8) + 27 * load_word(c + 12) + 81 * load_word(c + 16);
}

// One row of codes, padded to whole blocks with code 1, as words `stride` bytes apart.
template <int64_t kCols, uint32_t (*pack)(const uint8_t*)>
void pack_row(const uint8_t* codes, int64_t n_cols, int64_t stride, uint8_t* out) {
  const int64_t n_full = n_cols / kCols;
  for (int64_t block = 0; block < n_full; ++block, out += stride, codes += kCols) {
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

// fn(first_row, n_rows, codes [n_rows, n_cols]) for panels of `panel_rows` rows, by all threads.
template <class Fn>
Status for_each_panel(const TernarySource& source, int64_t panel_rows, ThreadPool& pool, const Fn& fn) {
  const int64_t n_panels = (source.n_rows + panel_rows - 1) / panel_rows;
  return parallel_status(pool, n_panels, [&](int64_t begin, int64_t end) -> Status {
    BN_ASSIGN_OR_RETURN(const Buffer panel, Buffer::allocate(size_t(panel_rows * source.n_cols)));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * panel_rows, n_rows = std::min(panel_rows, source.n_rows - first);
      BN_RETURN_IF_ERROR(source.read_codes(first, n_rows, panel.as<uint8_t>()));
      fn(first, n_rows, panel.as<uint8_t>());
    }
    return ok();
  });
}

// The columns' vector at `columns` from the codes of its rows: the bytes of kSquare columns first, then turned round.
void pack_columns(const uint8_t* codes, int64_t n_rows, int64_t n_cols, bool base3, int64_t column_bytes,
                  uint8_t* columns) {
  constexpr int64_t kSquare = 64;
  static_assert(kSquare == kVectorBytes);
  for (int64_t first = 0; first < n_cols; first += kSquare) {
    const int64_t n = std::min(kSquare, n_cols - first);
    uint8_t bytes[kVectorBytes][kSquare] = {};
    for (int64_t row = 0; row < n_rows; ++row) {
      const uint8_t place = place_of(row / kVectorBytes, base3);
      uint8_t* const to = bytes[row % kVectorBytes];
      const uint8_t* const from = codes + row * n_cols + first;
      for (int64_t i = 0; i < n; ++i) to[i] = uint8_t(to[i] + from[i] * place);
    }
    for (int64_t i = 0; i < n; ++i) {
      uint8_t* const column = columns + (first + i) * column_bytes;
      for (int64_t b = 0; b < kVectorBytes; ++b) column[b] = bytes[b][i];
    }
  }
}

// A third of a byte below 243, rounded down, within 16 bits.
uint16_t third(uint16_t x) { return uint16_t(x * 171) >> 9; }
template <int j>
void take_digits(const uint8_t* bytes, int64_t n, uint8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t x = bytes[i];
    for (int k = 0; k < j; ++k) x = third(x);
    codes[i] = uint8_t(x - 3 * third(x));
  }
}

}  // namespace

void pack_codes(const uint8_t* codes, int64_t n_cols, bool base3, int64_t stride, uint8_t* out) {
  (base3 ? pack_row<kBase3BlockCols, pack_digits> : pack_row<kBlockCols, pack_fields>)(codes, n_cols, stride, out);
}

void take_codes(const uint8_t* bytes, int64_t n, int64_t j, bool base3, uint8_t* codes) {
  constexpr void (*kTake[5])(const uint8_t*, int64_t, uint8_t*) = {take_digits<0>, take_digits<1>, take_digits<2>,
                                                                   take_digits<3>, take_digits<4>};
  if (base3) return kTake[j](bytes, n, codes);
  const int shift = int(2 * j);
  for (int64_t i = 0; i < n; ++i) codes[i] = uint8_t(bytes[i] >> shift & 3);
}

int CpuTernaryMatrix::code(int64_t row, int64_t col) const {
  if (use_ == TernaryUse::kSomeColumns) {
    const int64_t in_vector = row % vector_rows();
    uint8_t code = 0;
    take_codes(piece(col) + row / vector_rows() * kVectorBytes + in_vector % kVectorBytes, 1, in_vector / kVectorBytes,
               base3_, &code);
    return code;
  }
  const int64_t block = col / block_cols(), in_block = col % block_cols();
  const uint8_t* const word = use_ == TernaryUse::kSomeRows
                                  ? piece(row) + 4 * block
                                  : piece(row / kTileRows) + block * kBlockBytes + row % kTileRows * 4;
  const int byte = word[in_block % 4];
  return base3_ ? byte / kPowers[in_block / 4] % 3 : byte >> (in_block / 4 * 2) & 3;
}

void CpuTernaryMatrix::widen_row(int64_t row, float* out) const {
  const float* const groups = n_groups() > 0 ? group_scales(row) : nullptr;
  for (int64_t col = 0; col < n_cols(); ++col) {
    const float weight = float(code(row, col) - 1);
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
  const uint8_t* const from = piece(0) + first / vector_rows() * kVectorBytes + first % kVectorBytes;
  const int64_t field = first % vector_rows() / kVectorBytes;
  for (int64_t block = 0; block < blocks; ++block) {
    uint8_t bytes[4][kTileRows] = {}, codes[kTileRows];
    const int64_t n = std::min(block_cols(), n_cols() - block * block_cols());
    for (int64_t col = 0; col < n; ++col) {
      take_codes(from + (block * block_cols() + col) * piece_bytes_, kTileRows, field, base3_, codes);
      const uint8_t place = place_of(col / 4, base3_);
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
  const bool base3 = kernels.base3 != nullptr && source.scales.groups.empty();
  const int64_t n_cols = source.n_cols, block_cols = base3 ? kBase3BlockCols : kBlockCols;
  const int64_t n_blocks = (n_cols + block_cols - 1) / block_cols, vector_rows = block_cols / 4 * kVectorBytes;
  int64_t n_pieces = (source.n_rows + kTileRows - 1) / kTileRows, piece_bytes = n_blocks * kBlockBytes;
  if (source.use == TernaryUse::kSomeRows) {
    n_pieces = source.n_rows;
    piece_bytes = round_up(4 * n_blocks, kVectorBytes);
  } else if (source.use == TernaryUse::kSomeColumns) {
    n_pieces = n_cols;
    piece_bytes = (source.n_rows + vector_rows - 1) / vector_rows * kVectorBytes;
  }
  BN_ASSIGN_OR_RETURN(Buffer pieces, Buffer::allocate(size_t(n_pieces * piece_bytes)));
  uint8_t* const out = pieces.as<uint8_t>();
  Status status = ok();
  if (source.use == TernaryUse::kSomeColumns) {
    status = for_each_panel(source, vector_rows, pool, [&](int64_t first, int64_t n_rows, const uint8_t* codes) {
      pack_columns(codes, n_rows, n_cols, base3, piece_bytes, out + first / vector_rows * kVectorBytes);
    });
  } else {
    status = for_each_panel(source, kTileRows, pool, [&](int64_t first, int64_t n_rows, const uint8_t* codes) {
      for (int64_t lane = 0; lane < n_rows; ++lane, codes += n_cols) {
        if (source.use == TernaryUse::kSomeRows) {
          pack_codes(codes, n_cols, base3, 4, out + (first + lane) * piece_bytes);
        } else {  // 16-row groups follow each other: 64 bytes a group
          pack_codes(codes, n_cols, base3, kBlockBytes, out + first / kTileRows * piece_bytes + 4 * lane);
        }
      }
    });
  }
  BN_RETURN_IF_ERROR(std::move(status));
  return std::unique_ptr<Matrix>(std::make_unique<CpuTernaryMatrix>(source, base3, piece_bytes, std::move(pieces)));
}

}  // namespace bitnet
