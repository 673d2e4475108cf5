#pragma once

#include "base/result.h"
#include "quant/ternary.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

// A ternary matrix for keeping and sending: the smallest packing of its codes, its scales, checksums that find damage
// and parity that repairs it. docs/formats/packed.md has it byte by byte. `bitnet convert --type packed` writes one a
// linear layer.
namespace bitnet {

struct PackedTernaryOptions {
  std::optional<TernaryLayout> layout;  // with scales kept apart; nothing: the smallest of base-3, hybrid, run-length
                                        // and sparse
  int chunk_bits = 12;                  // chunks of 2^12 bytes have a checksum each
  uint32_t chunks_a_parity = 64;        // one chunk of parity for so many; 0: none
  const TernaryCodecs* codecs = &kPlainTernaryCodecs;
};
Result<std::vector<std::byte>> write_packed_ternary(int64_t n_rows, int64_t n_cols, std::span<const uint8_t> codes,
                                                    const TernaryScales& scales,
                                                    const PackedTernaryOptions& options = {});

struct PackedTernaryHeader {
  TernaryLayout layout = TernaryLayout::kBase3;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
};
// What the bytes say they are, from a header that its checksum confirms.
Result<PackedTernaryHeader> packed_ternary_header(std::span<const std::byte> bytes);

struct UnpackedTernary {
  TernaryLayout layout = TernaryLayout::kBase3;
  std::vector<uint8_t> codes;  // [n_rows, n_cols]
  TernaryScales scales;
  int64_t n_repaired = 0;  // chunks, header and table copies that were damaged and have been restored
};
// Every chunk is compared with its checksum. Of the chunks that share a parity chunk one may be damaged, and is
// restored; more are an error that names the first. A shape other than the one expected is refused before any memory is
// taken for it.
Result<UnpackedTernary> read_packed_ternary(std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols,
                                            const TernaryCodecs& codecs = kPlainTernaryCodecs);

}  // namespace bitnet
