#include "quant/past_cache.h"
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
Error locate_in_block(const TernaryView& view, const uint8_t* block, int64_t first_flat_index) {
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
  } else if constexpr (Block::kBytes == 1) {
    return bad_code(view, first_flat_index, fmt::format("byte 0x{:02x}", *block).c_str());
  } else {
    uint8_t codes[Block::kValues];
    Block::decode(block, codes);
    while (at < Block::kValues - 1 && codes[at] != 3) ++at;
    return bad_code(view, first_flat_index + at, "2-bit code 3");
  }
}
// The same of a run of blocks, the first of them beginning at the value `first_flat_index`.
template <class Block>
Error locate_bad_code(const TernaryView& view, const uint8_t* blocks, int64_t n_blocks, int64_t first_flat_index) {
  int64_t i = 0;
  uint8_t codes[Block::kValues];
  while (i < n_blocks - 1 && Block::decode(blocks + i * Block::kBytes, codes)) ++i;
  return locate_in_block<Block>(view, blocks + i * Block::kBytes, first_flat_index + i * Block::kValues);
}

// Whole blocks to `out`.
template <class Block>
Status decode_blocks(const TernaryView& view, const BlockCodec& codec, const uint8_t* blocks, int64_t n_blocks,
                     int64_t first_flat_index, PastCache& out) {
  if (codec.decode_past != nullptr && out.is_on_a_line()) {
    if (!codec.decode_past(blocks, n_blocks, out.room_past())) {
      return locate_bad_code<Block>(view, blocks, n_blocks, first_flat_index);
    }
    out.add_past(n_blocks * Block::kValues);
    return ok();
  }
  for (int64_t at = 0, n; at < n_blocks; at += n) {
    n = std::min(out.blocks_at_once(Block::kValues), n_blocks - at);
    const uint8_t* const some = blocks + at * Block::kBytes;
    if (!codec.decode(some, n, out.room())) {
      return locate_bad_code<Block>(view, some, n, first_flat_index + at * Block::kValues);
    }
    out.add(n * Block::kValues);
  }
  return ok();
}

// Values [begin, end) of the flattened matrix. The ends of a range that starts or stops inside a block (blocks of I2_S
// may straddle rows) go through a copy.
template <class Block>
Status decode_flat(const TernaryView& view, const TernaryCodecs& codecs, const BlockCodec& codec, int64_t begin,
                   int64_t end, uint8_t* codes) {
  PastCache out(codecs, codes, end - begin);
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  for (int64_t at = begin; at < end;) {
    const int64_t index = at / Block::kValues, block_begin = index * Block::kValues;
    const uint8_t* block = bytes + index * Block::kBytes;
    const int64_t n_whole = at == block_begin ? (end - at) / Block::kValues : 0;
    if (n_whole > 0) {
      BN_RETURN_IF_ERROR(decode_blocks<Block>(view, codec, block, n_whole, block_begin, out));
      at += n_whole * Block::kValues;
      continue;
    }
    uint8_t part[Block::kValues];
    if (!Block::decode(block, part)) {
      return locate_in_block<Block>(view, block, Block::kBytes == 1 ? std::max(block_begin, begin) : block_begin);
    }
    const int64_t n = std::min(end, block_begin + Block::kValues) - at;
    std::memcpy(out.room(), part + (at - block_begin), size_t(n));
    out.add(n);
    at += n;
  }
  return ok();
}

// Rows of [scale][blocks].
template <class Block, int64_t kScaleBytes>
Status decode_rows(const TernaryView& view, const TernaryCodecs& codecs, const BlockCodec& codec, int64_t row_begin,
                   int64_t n_rows, uint8_t* codes) {
  PastCache out(codecs, codes, n_rows * view.n_cols);
  const int64_t n_blocks = view.n_cols / Block::kValues, row_bytes = kScaleBytes + n_blocks * Block::kBytes;
  for (int64_t row = row_begin; row < row_begin + n_rows; ++row) {
    const auto* blocks = reinterpret_cast<const uint8_t*>(view.bytes.data()) + row * row_bytes + kScaleBytes;
    BN_RETURN_IF_ERROR(decode_blocks<Block>(view, codec, blocks, n_blocks, row * view.n_cols, out));
  }
  return ok();
}

// Of transformers' packing one row after another: a quarter of each byte.
Status decode_hf_rows(const TernaryView& view, const TernaryCodecs& codecs, int64_t row_begin, int64_t n_rows,
                      uint8_t* codes) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  const int64_t n_packed_rows = (view.n_rows + 3) / 4;
  for (int64_t row = row_begin; row < row_begin + n_rows; ++row, codes += view.n_cols) {
    uint8_t* quarters[4] = {};
    quarters[row / n_packed_rows] = codes;
    if (!codecs.decode_quarters(bytes + row % n_packed_rows * view.n_cols, view.n_cols, quarters)) {
      const int64_t column = std::find(codes, codes + view.n_cols, 3) - codes;
      return bad_code(view, row * view.n_cols + column, "2-bit code 3");
    }
  }
  return ok();
}

// The whole matrix reads each byte once.
Status decode_hf(const TernaryView& view, const TernaryCodecs& codecs, uint8_t* codes) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.bytes.data());
  const int64_t n_packed_rows = (view.n_rows + 3) / 4, n_cols = view.n_cols;
  // Of a matrix of few rows the last quarters may have none.
  const auto quarter = [&](int64_t k) {
    return PastCache(codecs, codes + std::min(k * n_packed_rows, view.n_rows) * n_cols, view.n_rows * n_cols);
  };
  PastCache out[4] = {quarter(0), quarter(1), quarter(2), quarter(3)};
  const bool past = codecs.decode_quarters_past != nullptr && n_cols % kLineBytes == 0 &&
                    std::all_of(out, out + 4, [](const PastCache& o) { return o.is_on_a_line(); });
  for (int64_t row = 0; row < n_packed_rows; ++row) {
    if (past) {
      uint8_t* quarters[4];
      for (int64_t k = 0; k < 4; ++k)
        quarters[k] = k * n_packed_rows + row < view.n_rows ? out[k].room_past() : nullptr;
      if (!codecs.decode_quarters_past(bytes + row * n_cols, n_cols, quarters)) {
        return decode_hf_rows(view, codecs, 0, view.n_rows, codes);
      }
      for (int64_t k = 0; k < 4; ++k) {
        if (quarters[k] != nullptr) out[k].add_past(n_cols);
      }
      continue;
    }
    for (int64_t col = 0, n; col < n_cols; col += n) {
      n = std::min(out[0].blocks_at_once(1), n_cols - col);
      uint8_t* quarters[4];
      for (int64_t k = 0; k < 4; ++k) quarters[k] = k * n_packed_rows + row < view.n_rows ? out[k].room() : nullptr;
      if (!codecs.decode_quarters(bytes + row * n_cols + col, n, quarters)) {
        return decode_hf_rows(view, codecs, 0, view.n_rows, codes);
      }
      for (int64_t k = 0; k < 4; ++k) {
        if (quarters[k] != nullptr) out[k].add(n);
      }
    }
  }
  return ok();
}

}  // namespace

Status decode_ternary(const TernaryView& view, int64_t row_begin, int64_t n_rows, uint8_t* codes,
                      const TernaryCodecs& codecs) {
  BN_RETURN_IF_ERROR(check_ternary_view(view));
  if (row_begin < 0 || n_rows < 0 || n_rows > view.n_rows - row_begin) {
    return invalid_argument("rows {} to {} of a matrix of {} rows", row_begin, row_begin + n_rows, view.n_rows);
  }
  const int64_t begin = row_begin * view.n_cols, end = begin + n_rows * view.n_cols;
  switch (view.layout) {
    case TernaryLayout::kI2S: return decode_flat<I2SBlock>(view, codecs, codecs.i2_s, begin, end, codes);
    case TernaryLayout::kI2SArm64:
      return decode_flat<I2SArm64Block>(view, codecs, codecs.i2_s_arm64, begin, end, codes);
    case TernaryLayout::kTQ1_0: return decode_flat<TQ1Block>(view, codecs, codecs.tq1_0, begin, end, codes);
    case TernaryLayout::kTQ2_0: return decode_flat<TQ2Block>(view, codecs, codecs.tq2_0, begin, end, codes);
    case TernaryLayout::kHfPacked:
      if (n_rows == view.n_rows) return decode_hf(view, codecs, codes);
      return decode_hf_rows(view, codecs, row_begin, n_rows, codes);
    case TernaryLayout::kBytes: return decode_flat<CodeByte>(view, codecs, codecs.bytes, begin, end, codes);
    case TernaryLayout::kTwoBit: return decode_flat<TwoBitByte>(view, codecs, codecs.two_bit, begin, end, codes);
    case TernaryLayout::kBase3: return decode_flat<Base3Byte>(view, codecs, codecs.base3, begin, end, codes);
    case TernaryLayout::kRunLength:
    case TernaryLayout::kSparse:
    case TernaryLayout::kHybrid: return decode_stream(view, begin, end, codes);
    case TernaryLayout::kTL1:
    case TernaryLayout::kTL2: return decode_lut(view, row_begin, n_rows, codes);
    case TernaryLayout::kQ1_0: return decode_flat<Q1Block>(view, codecs, codecs.q1_0, begin, end, codes);
    case TernaryLayout::kQ2_0: return decode_flat<Q2Block<64>>(view, codecs, codecs.q2_0, begin, end, codes);
    case TernaryLayout::kQ2_0G128: return decode_flat<Q2Block<128>>(view, codecs, codecs.q2_0_g128, begin, end, codes);
    case TernaryLayout::kIQ1BN:
      return decode_rows<Iq1BnBlock, 2>(view, codecs, codecs.iq1_bn, row_begin, n_rows, codes);
    case TernaryLayout::kIQ2BN:
      return decode_rows<Iq2BnBlock, 4>(view, codecs, codecs.iq2_bn, row_begin, n_rows, codes);
    case TernaryLayout::kMsGpu: return decode_ms_gpu(view, row_begin, n_rows, codes);
  }
  return invalid_argument("unknown ternary layout");
}

}  // namespace bitnet
