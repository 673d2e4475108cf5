#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bitnet {

// CRC-32C (Castagnoli, RFC 3720): polynomial 0x1EDC6F41 reflected, all ones in and out. `crc` is that of the bytes
// before, so that data may come in pieces.
uint32_t crc32c(std::span<const std::byte> data, uint32_t crc = 0);

}  // namespace bitnet
