#pragma once

#include "base/result.h"
#include "format/gguf.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

class Checksum;

// The table of checksums that our writer puts into a GGUF file (docs/formats/gguf.md): an array of u64, first the one
// of the tensors' types and sizes, then one a tensor in file order.
inline constexpr const char* kChecksumKey = "bitnet.checksum.xxh3_64";

// XXH3-64 of every tensor's type and size in order: what changes when another program quantises the file and keeps the
// metadata that it does not know.
uint64_t layout_checksum(std::span<const StoredTensor> tensors);
// A tensor's checksum before its data: the name counts, so that exchanged names are noticed.
Checksum begin_checksum(const StoredTensor& tensor);

// Thread-safe; refers to the file.
class GgufChecksums {
 public:
  enum class Kind : uint8_t {
    kNone,      // the file has no table
    kOutdated,  // the table is of other tensors: the file was rewritten by a program that does not know it
    kValid,
  };

  GgufChecksums() = default;
  // A key of the wrong type is an error.
  static Result<GgufChecksums> read(const GgufFile& file);

  Kind kind() const { return kind_; }
  // Ok unless the table is valid and says otherwise.
  Status verify(const StoredTensor& tensor, std::span<const std::byte> data) const;
  Status verify(const StoredTensor& tensor, const Checksum& checksum) const;

 private:
  Kind kind_ = Kind::kNone;
  const GgufFile* file_ = nullptr;
  const std::vector<uint64_t>* table_ = nullptr;
};

}  // namespace bitnet
