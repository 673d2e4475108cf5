#include "quant/ternary.h"
#include "quant/ternary_blocks.h"
#include "quant/ternary_streams.h"
#include "quant/ternary_tiles.h"

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
  } else if constexpr (std::is_same_v<Block, Iq1BnBlock>) {
    while (at < 12 && kBase3LeastFirst.five[block[at]]) ++at;
    const int64_t value = at == 12 ? 15 : at / 3 * 16 + at % 3 * 5;
    return bad_code(view, first_flat_index + value, fmt::format("base-3 byte 0x{:02x}", block[at]).c_str());
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

// Rows of [scale][blocks].
template <class Block, int64_t kScaleBytes>
Status decode_rows(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes) {
  const int64_t n_blocks = view.n_cols / Block::kValues, row_bytes = kScaleBytes + n_blocks * Block::kBytes;
  for (int64_t row = row_begin; row < row_begin + n_rows; ++row) {
    const auto* block = reinterpret_cast<const uint8_t*>(view.bytes.data()) + row * row_bytes + kScaleBytes;
    for (int64_t i = 0; i < n_blocks; ++i, block += Block::kBytes, codes += Block::kValues) {
      if (!Block::decode(block, codes)) {
        return locate_bad_code<Block>(view, block, row * view.n_cols + i * Block::kValues);
      }
    }
  }
  return ok();
}

Status decode_bytes(const TernaryView& view, int64_t begin, int64_t end, uint8_t* codes) {
  std::memcpy(codes, view.bytes.data() + begin, size_t(end - begin));
  const uint8_t* bad = std::find_if(codes, codes + (end - begin), [](uint8_t code) { return code > 2; });
  if (bad == codes + (end - begin)) return ok();
  return bad_code(view, begin + (bad - codes), fmt::format("code {}", *bad).c_str());
}

// Neighbours in one byte, kPerByte of them. The bytes that a range begins and ends in may belong to other rows too.
template <int64_t kPerByte, bool (*kUnpack)(const uint8_t*, int64_t, uint8_t*)>
Status decode_neighbours(const TernaryView& view, int64_t begin, int64_t end, uint8_t* codes) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  const auto fail = [&](int64_t first_byte, int64_t n_bytes) {
    for (int64_t b = first_byte; b < first_byte + n_bytes; ++b) {
      uint8_t one[8];
      if (!kUnpack(bytes + b, 1, one)) {
        return bad_code(view, std::clamp(b * kPerByte, begin, end - 1), fmt::format("byte 0x{:02x}", bytes[b]).c_str());
      }
    }
    return bad_code(view, begin, "a byte");
  };
  for (int64_t at = begin; at < end;) {
    const int64_t byte = at / kPerByte, whole = (end - at) / kPerByte;
    if (at % kPerByte == 0 && whole > 0) {
      if (!kUnpack(bytes + byte, whole, codes + (at - begin))) return fail(byte, whole);
      at += whole * kPerByte;
      continue;
    }
    uint8_t part[8];
    if (!kUnpack(bytes + byte, 1, part)) return fail(byte, 1);
    const int64_t n = std::min(end, (byte + 1) * kPerByte) - at;
    std::memcpy(codes + (at - begin), part + at % kPerByte, size_t(n));
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
    case TernaryLayout::kBytes: return decode_bytes(view, begin, end, codes);
    case TernaryLayout::kTwoBit: return decode_neighbours<4, unpack_neighbours>(view, begin, end, codes);
    case TernaryLayout::kBase3: return decode_neighbours<5, unpack_base3_neighbours>(view, begin, end, codes);
    case TernaryLayout::kRunLength:
    case TernaryLayout::kSparse:
    case TernaryLayout::kHybrid: return decode_stream(view, begin, end, codes);
    case TernaryLayout::kTL1:
    case TernaryLayout::kTL2: return decode_lut(view, row_begin, n_rows, codes);
    case TernaryLayout::kQ1_0: return decode_flat<Q1Block>(view, begin, end, codes);
    case TernaryLayout::kQ2_0: return decode_flat<Q2Block<64>>(view, begin, end, codes);
    case TernaryLayout::kQ2_0G128: return decode_flat<Q2Block<128>>(view, begin, end, codes);
    case TernaryLayout::kIQ1BN: return decode_rows<Iq1BnBlock, 2>(view, row_begin, n_rows, codes);
    case TernaryLayout::kIQ2BN: return decode_rows<Iq2BnBlock, 4>(view, row_begin, n_rows, codes);
    case TernaryLayout::kMsGpu: return decode_ms_gpu(view, row_begin, n_rows, codes);
  }
  return invalid_argument("unknown ternary layout");
}

}  // namespace bitnet
