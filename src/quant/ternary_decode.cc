#include "quant/ternary.h"
#include "quant/ternary_blocks.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace bitnet {
namespace {

using namespace ternary;

Error bad_code(const TernaryView& view, int64_t flat_index, const char* what) {
  return invalid_input("row {}, column {}: {}, which stands for no ternary value in {}", flat_index / view.n_cols,
                       flat_index % view.n_cols, what, ternary_layout_name(view.layout));
}

// Names the first value of `block` that cannot be read.
template <class Block>
Error locate_bad_code(const TernaryView& view, const uint8_t* block, int64_t first_flat_index) {
  int64_t at = 0;
  if constexpr (std::is_same_v<Block, TQ1Block>) {
    while (at < 47 && kBase3Valid.five[block[at]]) ++at;
    if (kBase3Valid.five[block[at]]) {
      at = 48;
      while (at < 51 && kBase3Valid.four[block[at]]) ++at;
    }
    const uint8_t byte = block[at];
    // The first value that byte `at` holds.
    const int64_t value = at < 32 ? at : at < 48 ? 160 + at - 32 : 240 + at - 48;
    return bad_code(view, first_flat_index + value, fmt::format("base-3 byte 0x{:02x}", byte).c_str());
  } else {
    uint8_t codes[Block::kValues];
    Block::decode(block, codes);
    while (at < Block::kValues - 1 && codes[at] != 3) ++at;
    return bad_code(view, first_flat_index + at, "2-bit code 3");
  }
}

// Values [begin, end) of the flattened matrix. Whole blocks go straight to `codes`; the ends of a range that starts or
// stops inside a block (I2_S blocks may straddle rows) go through a copy.
template <class Block>
Status decode_flat(const TernaryView& view, int64_t begin, int64_t end, uint8_t* codes) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  for (int64_t at = begin; at < end;) {
    const int64_t index = at / Block::kValues, block_begin = index * Block::kValues;
    const uint8_t* block = bytes + index * Block::kBytes;
    if (at == block_begin && end - at >= Block::kValues) {
      if (!Block::decode(block, codes + (at - begin))) return locate_bad_code<Block>(view, block, block_begin);
      at += Block::kValues;
      continue;
    }
    uint8_t whole[Block::kValues];
    if (!Block::decode(block, whole)) return locate_bad_code<Block>(view, block, block_begin);
    const int64_t n = std::min(end, block_begin + Block::kValues) - at;
    std::memcpy(codes + (at - begin), whole + (at - block_begin), size_t(n));
    at += n;
  }
  return ok();
}

// One row of transformers' packing: slice i of the byte row, at bits 2i. Chunks of a fixed length become vector code at
// every optimisation level.
template <int kShift>
bool unpack_slice(const uint8_t* __restrict in, int64_t n, uint8_t* __restrict codes) {
  constexpr int64_t kChunk = 64;
  uint8_t threes = 0;
  int64_t c = 0;
  for (; c + kChunk <= n; c += kChunk) {
    for (int64_t k = 0; k < kChunk; ++k) {
      const uint8_t code = in[c + k] >> kShift & 3;
      codes[c + k] = code;
      threes |= uint8_t(code & code >> 1);
    }
  }
  for (; c < n; ++c) {
    codes[c] = in[c] >> kShift & 3;
    threes |= uint8_t(codes[c] & codes[c] >> 1);
  }
  return (threes & 1) == 0;
}

Status decode_hf(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  const int64_t n_packed_rows = (view.n_rows + 3) / 4;
  for (int64_t row = row_begin; row < row_begin + n_rows; ++row, codes += view.n_cols) {
    const uint8_t* in = bytes + row % n_packed_rows * view.n_cols;
    bool good = false;
    switch (row / n_packed_rows) {
      case 0: good = unpack_slice<0>(in, view.n_cols, codes); break;
      case 1: good = unpack_slice<2>(in, view.n_cols, codes); break;
      case 2: good = unpack_slice<4>(in, view.n_cols, codes); break;
      default: good = unpack_slice<6>(in, view.n_cols, codes); break;
    }
    if (!good) {
      const int64_t column = std::find(codes, codes + view.n_cols, 3) - codes;
      return bad_code(view, row * view.n_cols + column, "2-bit code 3");
    }
  }
  return ok();
}

}  // namespace

Status decode_ternary(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes) {
  BN_RETURN_IF_ERROR(check_ternary_view(view));
  if (row_begin < 0 || n_rows < 0 || n_rows > view.n_rows - row_begin) {
    return invalid_argument("rows {} to {} of a matrix of {} rows", row_begin, row_begin + n_rows, view.n_rows);
  }
  const int64_t begin = row_begin * view.n_cols, end = begin + n_rows * view.n_cols;
  switch (view.layout) {
    case TernaryLayout::kI2S: return decode_flat<I2SBlock>(view, begin, end, codes);
    case TernaryLayout::kI2SArm64: return decode_flat<I2SArm64Block>(view, begin, end, codes);
    case TernaryLayout::kTQ1_0: return decode_flat<TQ1Block>(view, begin, end, codes);
    case TernaryLayout::kTQ2_0: return decode_flat<TQ2Block>(view, begin, end, codes);
    case TernaryLayout::kHfPacked: return decode_hf(view, row_begin, n_rows, codes);
  }
  return invalid_argument("unknown ternary layout");
}

}  // namespace bitnet
