#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// A file inside an archive, whose bytes lie in it as they are.
struct ZipEntry {
  std::string name;
  uint64_t offset_bytes = 0;  // of its data, from the start of the archive
  uint64_t size_bytes = 0;
};

// Fills `out` with bytes of the archive, whose length is known and not exceeded.
using ReadBytes = std::function<Status(uint64_t offset_bytes, std::span<std::byte> out)>;

// The entries of a zip archive, in the order of their data (specification: PKWARE APPNOTE.TXT 6.3.10, zip64 included).
// Refused by name: compressed or encrypted entries, archives in parts, entries that overlap, lie outside, are there
// twice, or that their own header describes otherwise than the central directory. Checksums are not compared.
Result<std::vector<ZipEntry>> read_zip_directory(const std::string& name, uint64_t size_bytes, const ReadBytes& read);

}  // namespace bitnet
